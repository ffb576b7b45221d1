"""Asking each replica which models it has ready: what answers is well, and what it answers is what it gets calls for."""

import asyncio

from tritonclient.grpc.service_pb2 import RepositoryIndexRequest, RepositoryIndexResponse

from gateway.errors import GatewayError, Unavailable
from gateway.upstream.pool import Pool
from gateway.upstream.replica import Health, Replica

_READY: bytes = RepositoryIndexRequest(ready=True).SerializeToString()


class Checks:
    """Model-level health.

    Triton's `grpc.health.v1` has no Watch and knows no models, so that gRPC's own client-side health check cannot tell
    this.

    Args:
        timeout_s: A question that is unanswered for so long is asked once more, and then the replica is silent.
    """

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._began_at = float("-inf")
        self._soon: dict[Replica, asyncio.Task[None]] = {}

    async def all(self, *, newer_than_s: float = 0.0) -> None:
        """Ask every replica, unless that began no longer ago than this."""
        now = asyncio.get_running_loop().time()
        if now < self._began_at + newer_than_s:
            return
        self._began_at = now
        await asyncio.gather(*(self.one(replica) for replica in self._pool.members))
        self._pool.tick()

    async def one(self, replica: Replica) -> None:
        """Ask one, and put it in or out."""
        times = 1 if replica.health is Health.SILENT else 2
        for _ in range(times):
            try:
                answer = await replica.link.call("RepositoryIndex", _READY, self._timeout_s)
            except Unavailable:
                self._pool.lost(replica)
                return
            except GatewayError:
                continue
            index = RepositoryIndexResponse.FromString(answer)
            self._pool.heard(replica, frozenset((each.name, each.version) for each in index.models if each.version))
            return
        self._pool.silent(replica)

    def soon(self, replica: Replica) -> None:
        """Ask one beside what is going on; once at a time."""
        if replica not in self._soon:
            task = asyncio.create_task(self.one(replica), name="check replica")
            self._soon[replica] = task
            task.add_done_callback(lambda _: self._soon.pop(replica))

    async def close(self) -> None:
        """End what is under way."""
        tasks = tuple(self._soon.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
