"""How a request reaches a Triton: through gRPC, or its tensors through shared memory: docs/decisions/0011-shared-memory.md."""

import asyncio
import contextlib
from typing import Protocol

import structlog
from tritonclient.grpc.service_pb2 import (
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest,
)

from gateway import wire
from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument, NotFound
from gateway.figures import FleetFigures
from gateway.upstream.meaning import ReplicaLost
from gateway.upstream.regions import Region, Regions, is_orphan, remove_orphans
from gateway.upstream.replica import Replica

# Below it a copy into shared memory is worth no less than what gRPC does.
_LEAST_BYTES = 256 << 10
# A cache line: some models read nothing that begins elsewhere.
_ALIGNMENT = 64
_REGISTER_S = 2.0
_REFUSED_S = 30.0
_ASK_S = 2.0
_FIRST_WAIT_S, _MAX_WAIT_S = 0.02, 5.0
# At the end: a request that was answered a moment ago may still hold its region. What stays is swept by who comes next.
_LAST_WAITS_S = (0.02, 0.1, 0.5)
_REGISTERED = "already in manager"

_log = structlog.get_logger(__name__)


class Message(Protocol):
    """A ModelInferRequest on its way: to one replica, or to others in its place."""

    async def ask(self, replica: Replica, deadline: float, affinity: str | None = None) -> bytes:
        """Ask a replica.

        Raises:
            GatewayError: Of the kind that the replica's status means.
        """

    def done(self) -> None:
        """No replica is asked any more."""


class InBand:
    """All of it through gRPC."""

    __slots__ = ("_request",)

    def __init__(self, request: bytes) -> None:
        self._request = request

    async def ask(self, replica: Replica, deadline: float, affinity: str | None = None) -> bytes:
        """Ask a replica."""
        return await replica.call("ModelInfer", self._request, deadline, affinity)

    def done(self) -> None:
        """No replica is asked any more."""


class Handover:
    """Large tensors into shared memory, of which the Tritons are told where they lie.

    A region is lent to one call. It is lent again only when no Triton reads it: a call that was answered was read, and of any
    other (cancelled, late, lost, refused) Triton alone knows. It counts the requests that use a region, and lets go of it only
    when there are none, so that it is told to, and asked whether it did. Until then another caller's bytes would enter a
    computation that was not theirs.

    Args:
        max_bytes: Of a worker's regions; 0: everything goes through gRPC.
    """

    def __init__(self, max_bytes: int, figures: FleetFigures) -> None:
        self._on = max_bytes > 0
        self._regions = Regions(max_bytes)
        self._figures = figures
        self._clock = asyncio.get_running_loop().time
        # Replicas that were told of a region; those that said yes, and those that may have.
        self._told: dict[tuple[Region, Replica], bool] = {}
        self._refused_until: dict[Replica, float] = {}
        self._freeing: set[asyncio.Task[None]] = set()
        # Those that a replica may read that left: nobody can ask it any more.
        self._lost: set[Region] = set()
        if self._on:
            remove_orphans()

    def message(self, request: bytes, added: bytes) -> Message:
        """The request with fields added at its end."""
        if not self._on or len(request) < _LEAST_BYTES:
            return InBand(request + added)
        tensors = wire.find_tensors(request)
        if tensors is None:
            self._figures.handed_over("unsuited")
            return InBand(request + added)
        places, size = [], 0
        for start, stop in tensors.contents:
            places.append(size)
            size += -(-(stop - start) // _ALIGNMENT) * _ALIGNMENT
        region = self._regions.lend(size)
        if region is None:
            self._figures.handed_over("no_room")
            for outgrown in self._regions.outgrown(size):
                self._free(outgrown, discard=True)
            return InBand(request + added)
        view = memoryview(request)
        for place, (start, stop) in zip(places, tensors.contents, strict=True):
            region.memory[place : place + stop - start] = view[start:stop]
        return _Shared(self, region, wire.by_region(request, tensors, region.name, places) + added, request, added)

    async def tell(self, region: Region, replica: Replica, deadline: float) -> bool:
        """See to it that a replica knows a region; whether it does.

        Raises:
            ReplicaLost: It is not there.
        """
        if self._told.get((region, replica)):
            return True
        now = self._clock()
        if self._refused_until.get(replica, 0.0) > now:
            return False
        request = SystemSharedMemoryRegisterRequest(name=region.name, key=f"/{region.key}", byte_size=region.size)
        self._told[region, replica] = False
        try:
            await replica.call(
                "SystemSharedMemoryRegister", request.SerializeToString(), min(deadline, now + _REGISTER_S)
            )
        except ReplicaLost:
            raise
        except DeadlineExceeded:
            return False  # Which says more about the caller.
        except GatewayError as error:
            if not isinstance(error, InvalidArgument) or _REGISTERED not in error.message:
                self._refused_until[replica] = self._clock() + _REFUSED_S
                _log.warning("shared memory is refused", replica=replica.index, error=error.message)
                return False
        self._told[region, replica] = True
        return True

    def went(self, way: str) -> None:
        """A large request was sent."""
        self._figures.handed_over(way)

    def unknown(self, region: Region, replica: Replica) -> None:
        """The replica says that it has no such region: another Triton has come in its place."""
        self._told[region, replica] = False

    def end(self, region: Region, unsure: bool) -> None:
        """The call that had a region is done.

        Args:
            unsure: It was sent to a replica that did not answer, or not for the region.
        """
        if not unsure:
            self._regions.give_back(region)
        elif self._on:
            self._free(region)

    async def sweep(self, replicas: tuple[Replica, ...]) -> None:
        """Have the Tritons let go of what workers left that were killed."""
        if not self._on:
            return
        for replica in replicas:
            try:
                answer = await replica.link.call("SystemSharedMemoryStatus", b"", _ASK_S)
                for name in SystemSharedMemoryStatusResponse.FromString(answer).regions:
                    if is_orphan(name):
                        await replica.link.call("SystemSharedMemoryUnregister", _unregister(name), _ASK_S)
            except GatewayError as error:
                _log.info("regions are not swept", replica=replica.index, error=error.message)

    async def forget(self, replica: Replica) -> None:
        """A replica leaves, and has no call under way."""
        for region in [region for region, told in self._told if told is replica]:
            if not await _ask_to_let_go(region, replica) and not self._regions.is_idle(region):
                self._lost.add(region)
            self._told.pop((region, replica), None)
        self._refused_until.pop(replica, None)

    async def close(self) -> None:
        """Remove the regions."""
        self._on = False
        for task in self._freeing:
            task.cancel()
        await asyncio.gather(*self._freeing, return_exceptions=True)
        told, self._told = tuple(self._told), {}
        await asyncio.gather(*(_ask_at_last(region, replica) for region, replica in told))
        for region in self._regions.all:
            self._regions.discard(region)

    def _free(self, region: Region, *, discard: bool = False) -> None:
        task = asyncio.create_task(self._freed(region, discard), name="free region")
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def _freed(self, region: Region, discard: bool) -> None:
        """Wait until no Triton has the region, for however long that takes."""
        wait_s = _FIRST_WAIT_S
        while replicas := [replica for told, replica in self._told if told is region]:
            for replica in replicas:
                if await _ask_to_let_go(region, replica):
                    self._told.pop((region, replica), None)
            if any(told is region for told, _ in self._told):
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _MAX_WAIT_S)
        if discard or region in self._lost:
            self._lost.discard(region)
            self._regions.discard(region)
        else:
            region.renew()
            self._regions.give_back(region)


class _Shared:
    """The tensors in a region."""

    __slots__ = ("_added", "_handover", "_message", "_region", "_request", "_unsure")

    def __init__(self, handover: Handover, region: Region, message: bytes, request: bytes, added: bytes) -> None:
        self._handover = handover
        self._region = region
        self._message = message
        self._request = request
        self._added = added
        self._unsure = 0

    async def ask(self, replica: Replica, deadline: float, affinity: str | None = None) -> bytes:
        """Ask a replica; through gRPC where it cannot have the region."""
        way = "refused"
        if await self._handover.tell(self._region, replica, deadline):
            name = self._region.name
            self._unsure += 1
            try:
                answer = await replica.call("ModelInfer", self._message, deadline, affinity)
            except GatewayError as error:
                # Refused for its region, it has not been begun; and a caller would learn the name.
                if name not in error.message:
                    raise
                self._handover.unknown(self._region, replica)
                way = "unknown_region"
            else:
                self._unsure -= 1
                self._handover.went("shared_memory")
                return answer
        self._handover.went(way)
        return await replica.call("ModelInfer", self._request + self._added, deadline, affinity)

    def done(self) -> None:
        """No replica is asked any more."""
        self._handover.end(self._region, self._unsure > 0)


async def _ask_to_let_go(region: Region, replica: Replica) -> bool:
    """Whether the replica has the region no more. Triton 2.51 refuses while a request uses it, and later ones do it afterwards."""
    try:
        await replica.link.call("SystemSharedMemoryUnregister", _unregister(region.name), _ASK_S)
        status = SystemSharedMemoryStatusRequest(name=region.name)
        await replica.link.call("SystemSharedMemoryStatus", status.SerializeToString(), _ASK_S)
    except NotFound:
        return True
    except GatewayError:
        return False
    return False


async def _ask_at_last(region: Region, replica: Replica) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ASK_S):
            for wait_s in _LAST_WAITS_S:
                if await _ask_to_let_go(region, replica):
                    return
                await asyncio.sleep(wait_s)
            await _ask_to_let_go(region, replica)


def _unregister(name: str) -> bytes:
    return bytes(SystemSharedMemoryUnregisterRequest(name=name).SerializeToString())
