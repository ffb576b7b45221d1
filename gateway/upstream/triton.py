"""The Tritons behind the gateway, as one."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tritonclient.grpc.service_pb2 import RepositoryIndexRequest

from gateway.errors import DeadlineExceeded, GatewayError, Internal, NotFound, Unavailable
from gateway.figures import FleetFigures
from gateway.ports import Sequence
from gateway.settings import UpstreamSettings
from gateway.upstream import index
from gateway.upstream.budget import RetryBudget
from gateway.upstream.checks import Checks
from gateway.upstream.handover import Handover, Message
from gateway.upstream.latencies import Latencies
from gateway.upstream.link import TritonLink
from gateway.upstream.meaning import ModelAway, ReplicaLost
from gateway.upstream.membership import Membership
from gateway.upstream.pool import Pool
from gateway.upstream.replica import Health, Replica
from gateway.upstream.sequences import SequenceHomes
from gateway.upstream.streams import TritonStreams

_ON_EACH = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
# A shorter deadline that passes says more about the caller than about the replica.
_SLOW_S = 1.0
_OK = "ok"
_NO_BUDGET = "no_budget"


class TritonUpstream:
    """Several replicas: chosen by their load, checked, left out when they fail, and asked in each other's place."""

    def __init__(self, settings: UpstreamSettings, max_message_bytes: int, figures: FleetFigures) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._max_message_bytes = max_message_bytes
        self._figures = figures
        self._clock = loop.time
        self._membership = Membership(settings.addresses, settings.max_replicas)
        self._pool = Pool(settings, self._clock, figures)
        self._checks = Checks(self._pool, settings.check_timeout_s)
        self._sequences = SequenceHomes(self._pool, settings.max_moved_sequences)
        self._handover = Handover(settings.shared_memory_bytes or 0, figures)
        self._budget = RetryBudget(settings.retry_share, settings.retry_min)
        self._latencies: dict[str, Latencies] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        if not self._membership.resolves:
            self._pool.set_members(self._replica(*each) for each in enumerate(settings.addresses))

    async def infer(
        self,
        model: str,
        version: str,
        request: bytes,
        deadline: float,
        sequence: Sequence | None = None,
        added: bytes = b"",
    ) -> bytes:
        """Answer a ModelInfer."""
        now = self._clock()
        self._budget.asked(now)
        message = self._handover.message(request, added)
        try:
            if sequence is not None:
                return await self._ask_home(sequence, model, version, message, deadline)
            replica = self._pool.pick(model, version)
            if self._settings.hedge:
                return await self._hedged(replica, model, version, message, deadline)
            return await self._ask(replica, model, version, message, deadline)
        finally:
            message.done()

    async def call(self, method: str, request: bytes, deadline: float) -> bytes:
        """Make one unary call other than an inference."""
        if method == "RepositoryIndex":
            return await self._index(request, deadline)
        if method in _ON_EACH:
            return await self._on_each(method, request, deadline)
        tried: list[Replica] = []
        while True:
            replica = self._pool.pick("", "", tried)
            try:
                return await replica.call(method, request, deadline)
            except (Unavailable, NotFound):
                tried.append(replica)
                if len(tried) == len(self._pool.rotation):
                    raise

    def members(self) -> tuple[Replica, ...]:
        """The replicas, well or not."""
        return self._pool.members

    def answering(self) -> tuple[Replica, ...]:
        """The replicas that answered their last check."""
        return tuple(replica for replica in self._pool.members if replica.health is Health.GOOD)

    @asynccontextmanager
    async def stream(self, deadline: float) -> AsyncIterator[TritonStreams]:
        """Open a ModelStreamInfer on one replica; leaving the block cancels what is still under way."""
        async with self._pool.pick("", "").stream(deadline) as stream:
            yield stream

    async def find_replicas(self) -> None:
        """Resolve the names, and take in and let go what changed."""
        addresses = await self._membership.current()
        kept = {replica.address: replica for replica in self._pool.members}
        if addresses == list(kept):
            return
        taken = {replica.index for replica in kept.values()}
        free = (number for number in itertools.count() if number not in taken)
        found = [kept.pop(address) if address in kept else self._replica(next(free), address) for address in addresses]
        self._pool.set_members(found)
        for replica in kept.values():
            task = asyncio.create_task(self._let_go(replica), name="drain replica")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def keep_found(self) -> None:
        """Resolve the names again and again until cancelled."""
        while self._membership.resolves:
            await asyncio.sleep(self._settings.resolve_s)
            await self.find_replicas()

    async def keep_checked(self) -> None:
        """Check the replicas until cancelled, whoever else does so and waits."""
        await self._handover.sweep(self._pool.members)
        while True:
            await asyncio.sleep(self._settings.refresh_s)
            await self._checks.all(newer_than_s=self._settings.refresh_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._handover.close()
        await self._checks.close()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for replica in self._pool.members:
            await replica.link.close()

    def _replica(self, index: int, address: str) -> Replica:
        return Replica(index, address, TritonLink(address, self._settings, self._max_message_bytes))

    async def _let_go(self, replica: Replica) -> None:
        """Close a replica's connections when its last call is done."""
        while replica.outstanding:
            await asyncio.sleep(self._settings.refresh_s)
        await self._handover.forget(replica)
        await replica.link.close()

    async def _ask(self, replica: Replica, model: str, version: str, message: Message, deadline: float) -> bytes:
        """Ask a replica, and others in its place while the budget and the time last."""
        tried: list[Replica] = []
        while True:
            try:
                answer = await self._once(replica, model, version, message, deadline)
            except (Unavailable, NotFound) as error:
                known = self._pool.serves(model, version)
                if tried:
                    self._figures.retried(model, error.kind.value)
                tried.append(replica)
                if isinstance(error, NotFound) and not known:
                    raise
                successor = self._successor(tried, model if known else "unknown", model, version)
                if successor is None:
                    raise
                replica = successor
            else:
                if tried:
                    self._figures.retried(model, _OK)
                return answer

    def _successor(self, tried: list[Replica], label: str, model: str, version: str) -> Replica | None:
        """Who is asked next; None where there is no one, or too much was asked again already."""
        if len(tried) >= self._settings.max_attempts:
            return None
        try:
            replica = self._pool.pick(model, version, tried)
        except Unavailable:
            return None
        if self._budget.spend(self._clock()):
            return replica
        self._figures.retried(label, _NO_BUDGET)
        return None

    async def _once(
        self,
        replica: Replica,
        model: str,
        version: str,
        message: Message,
        deadline: float,
        affinity: str | None = None,
    ) -> bytes:
        """One attempt; what its failure says of the replica is noted."""
        started = self._clock()
        try:
            answer = await message.ask(replica, deadline, affinity)
        except GatewayError as error:
            if self._pool.serves(model, version):
                self._note(replica, model, version, error, self._clock() - started)
            elif isinstance(error, Unavailable):
                self._checks.soon(replica)
            raise
        if replica.failures:
            replica.failures.pop(model, None)
        return answer

    def _note(self, replica: Replica, model: str, version: str, error: GatewayError, took_s: float) -> None:
        if isinstance(error, ModelAway):
            self._pool.failed(replica, model, at_once=True)
        elif isinstance(error, NotFound):
            self._pool.withdraw(replica, model, version)
        elif isinstance(error, ReplicaLost):
            self._pool.lost(replica)
            self._checks.soon(replica)
        elif isinstance(error, Unavailable):
            self._pool.failed(replica, model)
            self._checks.soon(replica)
        elif isinstance(error, Internal) or isinstance(error, DeadlineExceeded) and took_s >= _SLOW_S:
            self._pool.failed(replica, model)

    async def _ask_home(self, sequence: Sequence, model: str, version: str, message: Message, deadline: float) -> bytes:
        """A request of a sequence goes to its replica alone, and only once: the state may have changed."""
        replica = self._sequences.home(sequence, model, version)
        return await self._once(replica, model, version, message, deadline, sequence.name)

    async def _hedged(self, replica: Replica, model: str, version: str, message: Message, deadline: float) -> bytes:
        """Ask a second replica too where the first is slower than 95 % of the answers; the first answer counts."""
        started = self._clock()
        known = self._pool.serves(model, version)
        latencies = self._latencies.setdefault(model, Latencies()) if known else Latencies()
        asked = {asyncio.create_task(self._ask(replica, model, version, message, deadline))}
        try:
            done, _ = await asyncio.wait(asked, timeout=latencies.p95_s)
            if not done and (second := self._successor([replica], model, model, version)) is not None:
                self._figures.hedged(model)
                asked.add(asyncio.create_task(self._once(second, model, version, message, deadline)))
            answer = await _first_good(asked)
            latencies.add(self._clock() - started)
            return answer
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _on_each(self, method: str, request: bytes, deadline: float) -> bytes:
        """On one after the other: what one cannot load the others are not asked to."""
        first = self._pool.pick("", "")
        answer = await first.call(method, request, deadline)
        for replica in self._pool.rotation:
            if replica is not first:
                await replica.call(method, request, deadline)
        return answer

    async def _index(self, request: bytes, deadline: float) -> bytes:
        """The models of all replicas; asked for those that are ready, the versions that every replica has."""
        if not RepositoryIndexRequest.FromString(request).ready:
            first = self._pool.pick("", "")
            others = [replica for replica in self._pool.rotation if replica is not first]
            asked = [replica.call("RepositoryIndex", request, deadline) for replica in (first, *others)]
            return index.merged(await asyncio.gather(*asked))
        await self._checks.all()
        if not self.answering():
            raise Unavailable("no inference server is healthy")
        return index.common(self.answering())


async def _first_good(asked: set[asyncio.Task[bytes]]) -> bytes:
    """The first answer; where there is none, the last failure."""
    waiting = asked
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return task.result()
        if not waiting:
            return done.pop().result()
