"""What makes two requests equal, as a keyed digest: a caller cannot compute two that collide, nor where an answer lies."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from gateway.call import Identity
from gateway.ports import CacheKey, Route
from gateway.settings import CacheSettings

FILE = "cache-secret"

_PLACES, _VALUES = "tidegate response cache 1: places", "tidegate response cache 1: values"
_EVERYONE = ""  # No subject is empty.


class CacheKeys:
    """Digests of requests, and marks on shared answers, by keys derived from one secret."""

    def __init__(self, secret: bytes) -> None:
        self._places = blake3(secret, derive_key_context=_PLACES).digest()
        self._values = blake3(secret, derive_key_context=_VALUES).digest()

    def key(self, route: Route, identity: Identity, request: bytes, load: bytes) -> CacheKey:
        """The key of a request, which must be without its id."""
        owner = _EVERYONE if route.shared else _owner(identity)
        parts = (route.model.encode(), route.version.encode(), route.digest, owner.encode())
        digest = blake3(key=self._places)
        digest.update(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
        digest.update(request)
        return CacheKey(route.model, route.version, digest.digest(), load)

    def mark(self, key: CacheKey, body: bytes) -> bytes:
        """Shows that an answer was put where it is found by one who has the secret; of `blake3.digest_size` bytes."""
        mark = blake3(key.digest + key.load, key=self._values)
        mark.update(body)
        return mark.digest()


def read_secret(settings: CacheSettings, state_dir: Path) -> bytes:
    """That of the settings; else, where answers are shared, that of the state directory; else one of this process."""
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    if not settings.shared:
        return secrets.token_bytes(blake3.key_size)
    path = state_dir / FILE
    # Linked into place: of several workers that start at once one writes it, and none reads half of it.
    staging = path.with_suffix(f".{os.getpid()}")
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(blake3.key_size))
    with suppress(FileExistsError):
        os.link(staging, path)
    staging.unlink()
    return path.read_bytes()


def _owner(identity: Identity) -> str:
    """Whose answers a caller may be given: those of its tenant, else its own."""
    return identity.subject if identity.tenant is None else f"tenant:{identity.tenant}"
