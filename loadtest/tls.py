"""How the load reaches a server that speaks TLS."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from loadtest.errors import BadLoad
from loadtest.settings import LoadSettings


def open_channel(settings: LoadSettings, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
    """A channel to the gRPC endpoint.

    Raises:
        BadLoad: A file cannot be read.
    """
    if not settings.tls:
        return grpc.insecure_channel(settings.grpc, options)
    ca, key, certificate = map(_read, (settings.tls_ca, settings.tls_key, settings.tls_certificate))
    if settings.tls_name is not None:
        options = [*options, ("grpc.ssl_target_name_override", settings.tls_name)]
    return grpc.secure_channel(settings.grpc, grpc.ssl_channel_credentials(ca, key, certificate), options)


def ssl_context(settings: LoadSettings) -> ssl.SSLContext:
    """For the HTTP endpoint.

    Raises:
        BadLoad: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        # What is trusted may be the server's certificate itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = settings.tls_name is None
        if settings.tls_certificate is not None:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except OSError as error:
        raise BadLoad(f"TIDEGATE_LOAD_TLS_…: {error}") from error
    return context


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise BadLoad(f"{path}: {error.strerror}") from error
