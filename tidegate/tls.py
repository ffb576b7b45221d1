"""How the commands of this machine reach a server that speaks TLS."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.settings import TlsSettings
from tidegate.errors import CommandError

_UNBOUNDED = -1


@dataclass(frozen=True, slots=True)
class ServerTrust:
    """The server's own certificate, which is on this machine: it is trusted itself, whatever name it is for.

    Attributes:
        client_certificate: What is shown to the server, as `client_key`; None: nothing.
    """

    certificate: Path
    client_certificate: Path | None
    client_key: Path | None

    @classmethod
    def of(cls, settings: TlsSettings) -> Self | None:
        """None where the server speaks no TLS."""
        if settings.certificate is None:
            return None
        shown = settings.client_certificate, settings.client_key
        return cls(settings.certificate.resolve(), *(path and path.resolve() for path in shown))

    @classmethod
    def from_json(cls, paths: Mapping[str, str | None]) -> Self:
        """From what `to_json` gave."""
        return cls(**{name: None if path is None else Path(path) for name, path in paths.items()})  # type: ignore[arg-type]  # The certificate is there.

    def to_json(self) -> dict[str, str | None]:
        """Paths, and no secret."""
        named = {name: getattr(self, name) for name in ("certificate", "client_certificate", "client_key")}
        return {name: path and str(path) for name, path in named.items()}

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            CommandError: A file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.certificate)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if self.client_certificate is not None:
                context.load_cert_chain(self.client_certificate, self.client_key, password="")
        except OSError as error:
            raise CommandError(f"{self.certificate}: {error}; check TIDEGATE_TLS__…") from error
        return context

    def name(self) -> str:
        """A name that the certificate is for: gRPC insists on one.

        Raises:
            CommandError: It cannot be read.
        """
        try:
            return _name(x509.load_pem_x509_certificate(self.certificate.read_bytes()))
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}; check TIDEGATE_TLS__…") from error

    def triton_arguments(self) -> dict[str, Any]:
        """For Triton's gRPC clients.

        Raises:
            CommandError: A file cannot be used.
        """
        name = self.name()
        try:
            chain = self.certificate.read_bytes()
            key, shown = (
                None if path is None else path.read_bytes() for path in (self.client_key, self.client_certificate)
            )
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}; check TIDEGATE_TLS__…") from error
        options = [
            ("grpc.ssl_target_name_override", name),
            ("grpc.max_send_message_length", _UNBOUNDED),
            ("grpc.max_receive_message_length", _UNBOUNDED),
        ]
        return {"creds": grpc.ssl_channel_credentials(chain, key, shown), "channel_args": options}


def _name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        name, *_ = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return found[0].replace("*", "any")
