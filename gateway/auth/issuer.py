"""The keys of an OpenID Connect issuer, read over HTTPS and kept for a while."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import structlog
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from gateway.bounded_wait import BoundedWait
from gateway.errors import Unavailable
from gateway.settings import OidcSettings

_MAX_DOCUMENT_BYTES = 256 * 1024
_MAX_KEYS = 100
# Whatever it answers: another status, no JSON, other JSON, keys that are none.
_ISSUER_ERRORS = (httpx.HTTPError, httpx.InvalidURL, PyJWTError, ValueError, TypeError, LookupError, TimeoutError)
_DISCOVERY = "/.well-known/openid-configuration"

_log = structlog.get_logger(__name__)


class IssuerKeys:
    """Keys by id. Those that were read go on working for `grace_s` while the issuer is away.

    An id that is not known has them read again, once in `retry_s` at most: tokens with made-up ids are no load on the
    issuer.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self, issuer: str, settings: OidcSettings, client: httpx.AsyncClient, clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._settings = settings
        self._client = client
        self._clock = clock
        self._wait = BoundedWait(settings.timeout_s)
        self._reading: asyncio.Task[None] | None = None
        self._keys: dict[str, PyJWK] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    async def find(self, key_id: str) -> PyJWK | None:
        """One key; None where the issuer has none of that id.

        Raises:
            Unavailable: The issuer's keys were not read for too long.
        """
        age = self._clock() - self._read_at
        if key_id not in self._keys or age > self._settings.grace_s:
            # A cancelled call leaves the reading to the others that wait for it.
            await asyncio.shield(self._refresh())
        elif age > self._settings.keys_s:
            self._refresh()
        if self._clock() - self._read_at > self._settings.grace_s:
            raise Unavailable("tokens cannot be checked: their issuer does not answer")
        return self._keys.get(key_id)

    async def close(self) -> None:
        """Give back the connections."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._wait.close()
        await self._client.aclose()

    def _refresh(self) -> asyncio.Task[None]:
        """The one reading under way; the one before where it is too early for another."""
        due = self._clock() - self._tried_at >= self._settings.retry_s
        if self._reading is None or (due and self._reading.done()):
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._remember())
        return self._reading

    async def _remember(self) -> None:
        try:
            self._keys = await self._wait.on(self._read())
        except _ISSUER_ERRORS as error:
            _log.warning("the keys of the token issuer cannot be read", issuer=self._issuer, error=repr(error))
        else:
            self._read_at = self._clock()

    async def _read(self) -> dict[str, PyJWK]:
        configuration = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
        if configuration["issuer"] != self._issuer:
            raise ValueError(f"the issuer calls itself {configuration['issuer']!r:.200}")
        found = await self._get(configuration["jwks_uri"])
        keys = PyJWKSet(found["keys"][:_MAX_KEYS]).keys
        return {key.key_id: key for key in keys if key.key_id is not None and key.public_key_use in (None, "sig")}

    async def _get(self, url: str) -> Any:
        text = bytearray()
        async with self._client.stream("GET", url) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                text += chunk
                if len(text) > _MAX_DOCUMENT_BYTES:
                    raise ValueError(f"{url} gives more than {_MAX_DOCUMENT_BYTES} bytes")
        return httpx.Response(200, content=bytes(text)).json()
