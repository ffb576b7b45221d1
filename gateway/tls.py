"""The certificates of the two public ports: read at the start, and again when their files change."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509

from gateway.settings import TlsSettings, TlsVersion

_PROTOCOLS = ("http/1.1", "h2")
_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}

_log = structlog.get_logger(__name__)


class BadCertificate(ValueError):
    """A file is not there, or is no certificate or key, or these do not belong together. The message names it."""


@dataclass(frozen=True, slots=True)
class Served:
    """What new connections are shown, at one time.

    Attributes:
        contexts: By the protocol that a port speaks.
        expires_at: When the first certificate of the chain ends, seconds since 1970.
    """

    contexts: Mapping[str, ssl.SSLContext]
    expires_at: float


class Certificates:
    """What both ports show to new connections. Connections that are open keep what they began with.

    Args:
        tell: Told when what is served ends, seconds since 1970, at the start and after each change.

    Raises:
        BadCertificate: The files cannot be served.
    """

    def __init__(self, settings: TlsSettings, tell: Callable[[float], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._stamp = _stamp(settings)
        self._served = load(settings)
        tell(self._served.expires_at)

    def context(self, protocol: str) -> ssl.SSLContext:
        """For a listener: each handshake takes what is served by then.

        Args:
            protocol: Its name in ALPN, `http/1.1` or `h2`.
        """
        context = _context(self._settings, protocol)

        def take_served(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self._served.contexts[protocol]

        context.sni_callback = take_served
        return context

    async def keep_fresh(self) -> None:
        """Look at the files for ever. What cannot be served yet, such as half of a renewal, is tried again."""
        while True:
            await asyncio.sleep(self._settings.reload_s)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Serve what the files hold, where they changed."""
        stamp = _stamp(self._settings)
        if stamp == self._stamp:
            return
        try:
            served = load(self._settings)
        except BadCertificate as error:
            _log.warning("the certificate that is served stays", reason=str(error))
            return
        if _stamp(self._settings) != stamp:
            return  # They changed meanwhile: the next look has them whole.
        self._stamp, self._served = stamp, served
        self._tell(served.expires_at)
        _log.info("the certificate was read anew", expires_at=int(served.expires_at))


def load(settings: TlsSettings) -> Served:
    """Read the files.

    Raises:
        BadCertificate: They cannot be served.
    """
    assert settings.certificate is not None and settings.key is not None
    contexts = {protocol: _context(settings, protocol) for protocol in _PROTOCOLS}
    try:
        chain = x509.load_pem_x509_certificates(settings.certificate.read_bytes())
        ends = [certificate.not_valid_after_utc for certificate in chain]
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{settings.certificate}: {_reason(error)}") from error
    return Served(
        contexts=contexts,
        expires_at=min(end.timestamp() for end in ends),
    )


def _context(settings: TlsSettings, protocol: str) -> ssl.SSLContext:
    assert settings.certificate is not None and settings.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_alpn_protocols([protocol])
    try:
        # A key that needs a passphrase would be asked for at the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{settings.certificate}, {settings.key}: {_reason(error)}") from error
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that goes on is not checked again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ValueError) as error:
            raise BadCertificate(f"{settings.client_ca}: {_reason(error)}") from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no certificate and key in PEM that belong together ({error.reason or error})"
    return getattr(error, "strerror", None) or str(error)


def _stamp(settings: TlsSettings) -> tuple[object, ...]:
    """What differs when a file was written or, as Kubernetes does it, a link to it was changed."""
    stamps: list[object] = []
    for path in (settings.certificate, settings.key, settings.client_ca):
        try:
            found = path.stat() if path is not None else None
        except OSError:
            found = None
        stamps.append(None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(stamps)
