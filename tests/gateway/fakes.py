"""Stand-ins for the stages around the one under test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.cache.answers import CachedAnswers
from gateway.cache.keys import CacheKeys
from gateway.cache.memory import MemoryCache
from gateway.call import Identity, Scope, Tier
from gateway.errors import GatewayError
from gateway.figures import CacheTier
from gateway.ports import ResponseCache, Route, Sequence
from gateway.settings import CacheSettings

Answer = Callable[[bytes], Awaitable[bytes]]


class FakeUpstream:
    """A Triton that answers each method as told, and keeps what it was asked."""

    def __init__(self, **answers: Answer) -> None:
        self._answers = answers
        self.asked: list[tuple[str, bytes]] = []
        self.deadlines: list[float] = []
        self.targets: list[tuple[str, str]] = []
        self.sequences: list[Sequence | None] = []

    async def call(self, method: str, request: bytes, deadline: float) -> bytes:
        self.asked.append((method, request))
        self.deadlines.append(deadline)
        return await self._answers[method](request)

    async def infer(
        self,
        model: str,
        version: str,
        request: bytes,
        deadline: float,
        sequence: Sequence | None = None,
        added: bytes = b"",
    ) -> bytes:
        self.targets.append((model, version))
        self.sequences.append(sequence)
        return await self.call("ModelInfer", request + added, deadline)


class NoLimit:
    """Every call's turn is at once."""

    @asynccontextmanager
    async def turn(self, model: str | None, tier: Tier, deadline: float) -> AsyncIterator[Callable[[], None]]:
        yield lambda: None

    def is_free(self, model: str) -> bool:
        return True


class NoRollouts:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Route, bytes | GatewayError | None]] = []

    def answered(self, route: Route, request: bytes, answer: bytes, seconds: float) -> None:
        self.seen.append((route, answer))

    def failed(self, route: Route, error: GatewayError, seconds: float) -> None:
        self.seen.append((route, error))

    def streamed(self, route: Route, error: GatewayError | None) -> None:
        self.seen.append((route, error))


class FakeAuthenticator:
    """Lets everyone in, or raises."""

    def __init__(self, error: Exception | None = None, identity: Identity | None = None) -> None:
        self._error = error
        self._identity = identity or Identity("tester", frozenset(Scope))
        self.asked: list[tuple[str | None, Scope]] = []

    async def authenticate(self, credential: str | None, scope: Scope) -> Identity:
        self.asked.append((credential, scope))
        if self._error is not None:
            raise self._error
        return self._identity


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLoads:
    """Loads by number."""

    def __init__(self) -> None:
        self.number = 0
        self.agreements = 0

    @property
    def current(self) -> bytes:
        return self.number.to_bytes(16, "big")

    def advance(self) -> None:
        self.number += 1

    async def agree(self) -> None:
        self.agreements += 1


class FakeCacheMetrics:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.hits: list[CacheTier] = []
        self.rejections = 0

    def hit(self, model: str, tier: CacheTier) -> None:
        self.hits.append(tier)

    def rejected(self, model: str) -> None:
        self.rejections += 1


def answers_in_memory(
    loads: FakeLoads | None = None, far: ResponseCache | None = None, metrics: FakeCacheMetrics | None = None
) -> CachedAnswers:
    """Over a memory for which no time passes."""
    settings = CacheSettings()
    near = MemoryCache(settings, lambda: 0.0)
    keys, metrics = CacheKeys(b"secret"), metrics or FakeCacheMetrics()
    return CachedAnswers(keys, loads or FakeLoads(), near, far, settings.ttl_s, lambda: 0.0, metrics)
