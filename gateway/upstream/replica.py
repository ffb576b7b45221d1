"""One Triton of several: what is known of it, and the calls it has under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from gateway.errors import DeadlineExceeded
from gateway.upstream.link import TritonLink
from gateway.upstream.streams import TritonStreams

Served = tuple[str, str]


class Health(StrEnum):
    """What the last check found.

    LOST: the connection broke or the port is closed. SILENT: two questions in a row are unanswered. NEW: not asked yet.
    """

    NEW = "new"
    GOOD = "good"
    SILENT = "silent"
    LOST = "lost"


class Replica:
    """One Triton, reached over a link.

    Attributes:
        index: Its number among the replicas, which names it in the metrics.
        address: host:port.
        outstanding: Calls under way.
        weight: Its share of the calls that a warm replica gets; under 1 while it comes back.
        serves: The models and versions that are ready, as it said when it was last asked.
        failures: Failed calls in a row, by model.
    """

    __slots__ = ("address", "failures", "health", "index", "link", "outstanding", "returned_at", "serves", "weight")

    def __init__(self, index: int, address: str, link: TritonLink) -> None:
        self.index = index
        self.address = address
        self.link = link
        self.outstanding = 0
        self.weight = 1.0
        self.serves: frozenset[Served] = frozenset()
        self.health = Health.NEW
        self.returned_at = float("-inf")
        self.failures: dict[str, int] = {}

    async def call(self, method: str, request: bytes, deadline: float, affinity: str | None = None) -> bytes:
        """Make one unary call.

        Raises:
            GatewayError: Of the kind that the replica's status means.
        """
        self.outstanding += 1
        try:
            return await self.link.call(method, request, _left(deadline), affinity)
        finally:
            self.outstanding -= 1

    @asynccontextmanager
    async def stream(self, deadline: float) -> AsyncIterator[TritonStreams]:
        """Open a ModelStreamInfer; leaving the block cancels what is still under way."""
        self.outstanding += 1
        try:
            async with self.link.stream(_left(deadline)) as stream:
                yield stream
        finally:
            self.outstanding -= 1


def _left(deadline: float) -> float:
    left_s = deadline - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline passed before Triton was asked")
    return left_s
