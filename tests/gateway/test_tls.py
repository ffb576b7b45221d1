"""TLS on both ports of a real worker: who may connect, and what becomes of a renewed certificate."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from tritonclient.grpc.service_pb2 import ServerLiveRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.settings import TlsSettings
from gateway.tls import BadCertificate, Certificates, load
from tests.certificates import NAMES, Pair, issued, server_settings
from tests.worker import Worker, worker

_STALL_S = 1
_RELOAD_S = "0.1"
_GAUGE = "tidegate_certificate_expiry_timestamp_seconds"
_YESTERDAY = timedelta(days=-1)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Of the server and of its callers."""
    return trustme.CA()


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    """Whom the server does not trust."""
    return trustme.CA()


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[Worker]:
    """A worker that asks for client certificates; no Triton is behind it."""
    directory = tmp_path_factory.mktemp("mutual")
    with worker(directory, **server_settings(directory, ca, ca), LIMITS__STALL_S=str(_STALL_S)) as started:
        yield started


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[Worker]:
    """A worker that asks for none, and speaks TLS 1.3 alone."""
    directory = tmp_path_factory.mktemp("newest")
    with worker(directory, **server_settings(directory, ca), TLS__MIN_VERSION="1.3") as started:
        yield started


def _rest(server: Worker, trusted: trustme.CA, shown: Pair | None, directory: Path) -> bool:
    context = ssl.create_default_context(cadata=trusted.cert_pem.bytes().decode())
    if shown is not None:
        context.load_cert_chain(*shown.write(directory, "client"))
    try:
        return httpx.get(f"https://{server.http}/v2/health/live", verify=context, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _grpc(server: Worker, trusted: trustme.CA, shown: Pair | None, directory: Path) -> bool:
    pair = (shown.key, shown.chain) if shown is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), *pair)
    with grpc.secure_channel(server.grpc, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return bool(GRPCInferenceServiceStub(channel).ServerLive(ServerLiveRequest(), timeout=10).live)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False


Ask = Callable[[Worker, trustme.CA, Pair | None, Path], bool]


@pytest.fixture(params=[_rest, _grpc])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A call over each of the two ports; whether it was answered."""
    asked: Ask = request.param
    return asked


def test_a_caller_with_a_certificate_of_the_authority_is_let_in(
    mutual: Worker, ca: trustme.CA, ask: Ask, tmp_path: Path
) -> None:
    assert ask(mutual, ca, issued(ca, "caller.test"), tmp_path)


def test_a_caller_that_trusts_another_authority_does_not_talk(
    mutual: Worker, ca: trustme.CA, other_ca: trustme.CA, ask: Ask, tmp_path: Path
) -> None:
    assert not ask(mutual, other_ca, issued(ca, "caller.test"), tmp_path)


def test_a_caller_without_a_certificate_is_refused(mutual: Worker, ca: trustme.CA, ask: Ask, tmp_path: Path) -> None:
    assert not ask(mutual, ca, None, tmp_path)


def test_a_certificate_of_another_authority_is_refused(
    mutual: Worker, ca: trustme.CA, other_ca: trustme.CA, ask: Ask, tmp_path: Path
) -> None:
    assert not ask(mutual, ca, issued(other_ca, "caller.test"), tmp_path)


def test_an_expired_certificate_is_refused(mutual: Worker, ca: trustme.CA, ask: Ask, tmp_path: Path) -> None:
    assert not ask(mutual, ca, issued(ca, "caller.test", expires_in=_YESTERDAY), tmp_path)


def test_without_a_client_authority_no_certificate_is_needed(
    newest: Worker, ca: trustme.CA, ask: Ask, tmp_path: Path
) -> None:
    assert ask(newest, ca, None, tmp_path)


def test_what_speaks_no_tls_is_not_answered(mutual: Worker) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{mutual.http}/v2/health/live")
    with grpc.insecure_channel(mutual.grpc) as channel, pytest.raises(grpc.RpcError):
        GRPCInferenceServiceStub(channel).ServerLive(ServerLiveRequest(), timeout=10)


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_2", False), ("TLSv1_3", True)])
def test_the_oldest_version_is_a_setting_of_both_ports(
    newest: Worker, ca: trustme.CA, port: str, version: str, spoken: bool
) -> None:
    context = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2" if port == "grpc" else "http/1.1"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    assert _handshake(getattr(newest, port), context) is spoken


def _handshake(address: str, context: ssl.SSLContext) -> bool:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            with context.wrap_socket(connection, server_hostname=host):
                return True
        except (ssl.SSLError, ConnectionResetError):
            return False


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_handshake_that_does_not_come_is_not_waited_for(mutual: Worker, port: str) -> None:
    host, number = getattr(mutual, port).split(":")
    with socket.create_connection((host, int(number)), timeout=_STALL_S + 10) as connection:
        connection.sendall(b"\x16\x03\x01")  # The first bytes of a ClientHello.
        try:
            while connection.recv(4_096):
                pass
        except ConnectionResetError:
            pass


def _expiry(server: Worker) -> float:
    lines = httpx.get(f"http://{server.metrics}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(_GAUGE + " "))


def test_a_renewed_certificate_and_authority_are_taken_up_by_both_ports(
    ca: trustme.CA, other_ca: trustme.CA, tmp_path: Path
) -> None:
    settings = server_settings(tmp_path, ca, ca)
    with worker(tmp_path, **settings, TLS__RELOAD_S=_RELOAD_S) as server:
        before = _expiry(server)
        caller, new_caller = issued(ca, "caller.test"), issued(other_ca, "caller.test")
        asks = (_rest, _grpc)
        assert all(ask(server, ca, caller, tmp_path) for ask in asks)
        other_ca.cert_pem.write_to_path(settings["TLS__CLIENT_CA"])
        issued(other_ca, *NAMES, expires_in=timedelta(days=1)).write(tmp_path, "server")
        deadline = time.monotonic() + 20
        while _expiry(server) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert _expiry(server) == pytest.approx(time.time() + 86_400, abs=60)
        assert all(ask(server, other_ca, new_caller, tmp_path) for ask in asks)
        assert not any(ask(server, other_ca, caller, tmp_path) for ask in asks)
        issued(other_ca, *NAMES, expires_in=_YESTERDAY).write(tmp_path, "server")
        while _expiry(server) > time.time():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not any(ask(server, other_ca, new_caller, tmp_path) for ask in asks)


def _settings(directory: Path, ca: trustme.CA) -> TlsSettings:
    named = {name.removeprefix("TLS__").lower(): path for name, path in server_settings(directory, ca, ca).items()}
    return TlsSettings.model_validate(named)


def test_half_of_a_renewal_is_not_served(ca: trustme.CA, tmp_path: Path) -> None:
    told: list[float] = []
    certificates = Certificates(_settings(tmp_path, ca), told.append)
    renewed = issued(ca, *NAMES, expires_in=timedelta(days=1))
    (tmp_path / "server.pem").write_bytes(renewed.chain)
    certificates.refresh()
    assert len(told) == 1
    (tmp_path / "server.key").write_bytes(renewed.key)
    certificates.refresh()
    certificates.refresh()
    assert len(told) == 2 and told[1] < told[0]


@pytest.mark.parametrize("name", ["server.pem", "server.key", "client-ca.pem"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_served_is_named(
    ca: trustme.CA, tmp_path: Path, name: str, content: bytes | None
) -> None:
    settings = _settings(tmp_path, ca)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCertificate, match=name):
        load(settings)


@pytest.mark.parametrize(
    "settings",
    [{"certificate": "a"}, {"key": "a"}, {"client_ca": "a"}, {"client_certificate": "a"}, {"client_key": "a"}],
)
def test_settings_that_do_not_belong_together_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="tls"):
        TlsSettings.model_validate(settings)
