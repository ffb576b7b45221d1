import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings, is_loopback


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_HTTP_PORT", "0")
    monkeypatch.setenv("TIDEGATE_CACHE__TTL_S", "5")
    monkeypatch.setenv("TIDEGATE_DATABASE__URL", "postgresql+asyncpg://u:hidden@h/d")
    settings = GatewaySettings()
    assert (settings.http_port, settings.cache.ttl_s) == (0, 5)
    assert settings.database_url == "postgresql+asyncpg://u:hidden@h/d"
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PORT", "70000"), ("AUTH__MODE", "maybe"), ("LIMITS__MAX_BODY_BYTES", "0"), ("CACHE__TTLS", "5")],
)
def test_a_wrong_value_or_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TIDEGATE_{name}", value)
    with pytest.raises(ValidationError):
        GatewaySettings()


@pytest.mark.parametrize(
    ("host", "allowed"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_the_door_is_open_on_loopback_only(monkeypatch: pytest.MonkeyPatch, host: str, allowed: bool) -> None:
    monkeypatch.setenv("TIDEGATE_AUTH__MODE", "off")
    monkeypatch.setenv("TIDEGATE_HOST", host)
    assert is_loopback(host) is allowed
    if allowed:
        GatewaySettings()
    else:
        with pytest.raises(ValidationError, match="loopback"):
            GatewaySettings()
