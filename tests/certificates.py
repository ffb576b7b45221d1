"""Certificates for tests, written where a server reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

# What a client on this machine calls the server.
NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate's chain and its key, in PEM."""

    chain: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Where they are then."""
        paths = directory / f"{name}.pem", directory / f"{name}.key"
        for path, content in zip(paths, (self.chain, self.key), strict=True):
            # In one step, as a renewal does it.
            staging = path.with_suffix(".new")
            staging.write_bytes(content)
            staging.replace(path)
        return paths


def issued(ca: trustme.CA, *names: str, expires_in: timedelta = timedelta(days=30)) -> Pair:
    """A certificate of an authority; in the past where it expired."""
    now = datetime.now(UTC)
    leaf = ca.issue_cert(*names, not_before=now - timedelta(days=60), not_after=now + expires_in)
    return Pair(b"".join(part.bytes() for part in leaf.cert_chain_pems), leaf.private_key_pem.bytes())


def server_settings(directory: Path, ca: trustme.CA, client_ca: trustme.CA | None = None) -> Mapping[str, str]:
    """The settings of a server with a certificate of `ca`, which asks for one of `client_ca`."""
    certificate, key = issued(ca, *NAMES).write(directory, "server")
    settings = {"TLS__CERTIFICATE": str(certificate), "TLS__KEY": str(key)}
    if client_ca is not None:
        path = directory / "client-ca.pem"
        client_ca.cert_pem.write_to_path(str(path))
        settings["TLS__CLIENT_CA"] = str(path)
    return settings
