from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from gateway import cache_control
from gateway.cache.keys import CacheKeys, read_secret
from gateway.call import Caching, Identity
from gateway.ports import CacheKey, Route
from gateway.settings import CacheSettings, GatewaySettings, RedisSettings

_KEYS = CacheKeys(b"secret")
_CALLER = Identity("key:a", frozenset(), tenant="acme")


def _route(model: str = "digits", version: str = "1", digest: bytes = b"config", shared: bool = False) -> Route:
    return Route(model, version, cacheable=True, takes_timeout=True, batches=True, shared=shared, digest=digest)


def _key(
    route: Route | None = None, identity: Identity = _CALLER, request: bytes = b"request", load: bytes = b"load"
) -> CacheKey:
    return _KEYS.key(route or _route(), identity, request, load)


def test_equal_requests_of_one_tenant_have_one_key() -> None:
    assert _key() == _key(identity=Identity("key:b", frozenset(), tenant="acme"))


def test_all_that_an_answer_depends_on_makes_another_key() -> None:
    keys = [
        _key(),
        _key(_route(model="letters")),
        _key(_route(version="2")),
        _key(_route(digest=b"other config")),
        _key(identity=Identity("key:a", frozenset(), tenant="umbrella")),
        _key(identity=Identity("key:a", frozenset())),
        _key(identity=Identity("token:a", frozenset())),
        _key(identity=Identity("tenant", frozenset(), tenant="acm")),
        _key(request=b"request "),
        _key(load=b"next load"),
    ]
    assert len(set(keys)) == len(keys)
    assert len({key.digest for key in keys}) == len(keys) - 1, "the load alone is beside the digest"


def test_neighbouring_fields_do_not_run_into_each_other() -> None:
    assert _key(_route(model="a", version="12")).digest != _key(_route(model="a1", version="2")).digest


def test_tenants_share_where_the_model_says_so() -> None:
    shared = _route(shared=True)
    assert _key(shared) == _key(shared, Identity("key:b", frozenset(), tenant="umbrella"))
    assert _key(shared).digest != _key().digest


def test_digests_and_marks_are_keyed_by_the_secret() -> None:
    other = CacheKeys(b"another secret")
    assert other.key(_route(), _CALLER, b"request", b"load").digest != _key().digest
    assert other.mark(_key(), b"answer") != _KEYS.mark(_key(), b"answer")


def test_a_mark_holds_for_one_answer_in_one_place_and_load() -> None:
    marks = [
        _KEYS.mark(_key(), b"answer"),
        _KEYS.mark(_key(), b"answers"),
        _KEYS.mark(_key(request=b"other"), b"answer"),
        _KEYS.mark(_key(load=b"next"), b"answer"),
    ]
    assert len(set(marks)) == len(marks)


def test_workers_of_a_machine_have_one_secret_that_only_they_can_read(tmp_path: Path) -> None:
    shared = CacheSettings(shared=True)
    secret = read_secret(shared, tmp_path)
    assert read_secret(shared, tmp_path) == secret and len(secret) == 32
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_machines_have_the_secret_of_the_settings(tmp_path: Path) -> None:
    assert read_secret(CacheSettings(shared=True, secret=SecretStr("s" * 32)), tmp_path) == b"s" * 32
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValidationError, match="32"):
        CacheSettings(secret=SecretStr("short"))


def test_what_is_not_shared_has_a_secret_of_the_process(tmp_path: Path) -> None:
    assert read_secret(CacheSettings(), tmp_path) != read_secret(CacheSettings(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_answers_are_shared_in_a_redis() -> None:
    with pytest.raises(ValidationError, match="cache.shared needs redis.url"):
        GatewaySettings(cache=CacheSettings(shared=True))
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1/0"))
    assert GatewaySettings(cache=CacheSettings(shared=True), redis=redis).cache.on


@pytest.mark.parametrize(
    ("header", "caching"),
    [
        (None, Caching.FREE),
        ("", Caching.FREE),
        ("max-age=0, private", Caching.FREE),
        ("no-cache", Caching.NO_CACHE),
        ("private, NO-CACHE", Caching.NO_CACHE),
        ("no-cache,no-store", Caching.NO_STORE),
    ],
)
def test_a_caller_says_what_the_cache_may(header: str | None, caching: Caching) -> None:
    assert cache_control.read(header) is caching
