"""Limits of keys and tenants, counted in Redis for all workers and machines together."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

from gateway.admission.limits import exceeded
from gateway.call import Identity, Limit, Resource
from gateway.errors import Unavailable
from gateway.ports import Limiter
from gateway.redis_link import RedisLink
from gateway.settings import LimiterSettings

_PREFIX = "tidegate:limit"


class NoLimits:
    """Lets every call in."""

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Nothing is counted."""
        yield


class RefuseLimited:
    """Lets in only callers that have no limits."""

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Nothing can be counted."""
        if identity.limits:
            raise Unavailable("limits cannot be counted: Redis does not answer")
        yield


class RedisLimiter:
    """One script, one round trip a call, and one more to give places back; while Redis is away another stands in.

    Args:
        instead: What counts while Redis is away.
    """

    def __init__(self, link: RedisLink, limiter: LimiterSettings, instead: Limiter) -> None:
        self._link = link
        self._burst_s = limiter.burst_s
        self._instead = instead
        self._script = link.client.register_script(resources.files(__package__).joinpath("admit.lua").read_text())
        self._releases: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Count a call against every limit, or against none."""
        if not identity.limits:
            yield
            return
        call = secrets.token_hex(8)
        refused = await self._ask(identity.limits, images, call, deadline)
        if refused is None:
            async with self._instead.admit(identity, images, deadline):
                yield
            return
        number, wait_s = refused
        if number:
            raise exceeded(identity.limits[number - 1], wait_s)
        try:
            yield
        finally:
            await self._give_back(identity.limits, call)

    async def close(self) -> None:
        """Give back the connections."""
        await asyncio.gather(*self._releases)
        await self._link.close()

    async def _ask(
        self, limits: tuple[Limit, ...], images: int, call: str, deadline: float
    ) -> tuple[int, float] | None:
        """The script's verdict; None where Redis does not answer."""
        lease_s = max(0.0, deadline - asyncio.get_running_loop().time())
        arguments = [str(self._burst_s), str(images), call, str(lease_s)]
        for limit in limits:
            arguments += (limit.resource.value, str(limit.amount))
        verdict = await self._link.ask(lambda: self._script([_key(limit) for limit in limits], arguments))
        return None if verdict is None else (int(verdict[0]), float(verdict[1]))

    async def _give_back(self, limits: tuple[Limit, ...], call: str) -> None:
        """Waited for, so that a caller's next call finds the place free; cancelled or not, it is given back."""
        held = [_key(limit) for limit in limits if limit.resource is Resource.IN_FLIGHT]
        if held and not self._link.away:
            task = asyncio.create_task(self._release(held, call))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)
            await asyncio.shield(task)

    async def _release(self, held: list[str], call: str) -> None:
        """Where it fails, the lease ends with the call's deadline."""
        pipeline = self._link.client.pipeline(transaction=False)
        for key in held:
            pipeline.zrem(key, call)
        with contextlib.suppress(*self._link.errors):
            await self._link.wait(pipeline.execute())


def _key(limit: Limit) -> str:
    return f"{_PREFIX}:{limit.account}:{limit.resource}"
