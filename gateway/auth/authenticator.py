"""From a credential to an identity."""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.auth.keys import ApiKey
from gateway.auth.memory import KeyMemory
from gateway.call import Identity, Scope
from gateway.errors import PermissionDenied, Unauthenticated

_HOW = "send an API key as 'authorization: Bearer tg_…'"


class KeyAuthenticator:
    """Checks API keys.

    Args:
        used: Told the id of each key that was let in.
    """

    def __init__(self, memory: KeyMemory, used: Callable[[str], None]) -> None:
        self._memory = memory
        self._used = used

    async def authenticate(self, credential: str | None, scope: Scope) -> Identity:
        """Check a key and its scope."""
        if credential is None:
            raise Unauthenticated(f"no API key: {_HOW}")
        shown = ApiKey.parse(credential)
        if shown is None:
            raise Unauthenticated(f"the API key is malformed: {_HOW}")
        stored = await self._memory.find(shown.key_id)
        if stored is None or not stored.opened_by(shown):
            raise Unauthenticated("the API key is unknown or wrong")
        if stored.revoked_at is not None:
            raise Unauthenticated("the API key was revoked")
        if stored.expires_at is not None and stored.expires_at <= datetime.now(UTC):
            raise Unauthenticated(f"the API key expired at {stored.expires_at:%Y-%m-%d %H:%M} UTC")
        if stored.blocked:
            raise Unauthenticated("the tenant of the API key is disabled")
        check_scope(stored.identity, scope)
        self._used(shown.key_id)
        return stored.identity


class OpenDoor:
    """Lets every caller in with every scope. The settings allow it on loopback only."""

    _EVERYONE = Identity("anonymous", frozenset(Scope))

    async def authenticate(self, credential: str | None, scope: Scope) -> Identity:
        """Anyone may do anything."""
        return self._EVERYONE


def check_scope(identity: Identity, scope: Scope) -> None:
    """Refuse who is known and may not do this.

    Raises:
        PermissionDenied: It has not the scope.
    """
    if scope not in identity.scopes:
        kind = identity.subject.partition(":")[0]
        raise PermissionDenied(f"the {'API key' if kind == 'key' else kind} has not the scope {scope.value!r}")
