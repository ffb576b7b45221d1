"""Large tensors through shared memory: the same answers, to the right callers, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusResponse,
)

from gateway.errors import DeadlineExceeded, GatewayError, Internal, InvalidArgument, Unavailable
from gateway.settings import MEBIBYTE, UpstreamSettings
from gateway.upstream import regions
from gateway.upstream.regions import Region, Regions
from gateway.upstream.triton import TritonUpstream
from serving.settings import SupervisionSettings, TritonSettings
from serving.triton import EmbeddedTriton
from tests.gateway import sums
from tests.gateway.fakes import soon
from tests.gateway.tritons import Figures, StandIn, check, fails, hangs, replicas, upstream

_LARGE = 300_000
_ROOM = 16 * MEBIBYTE


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums.repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
async def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedTriton]:
    settings = TritonSettings(exit_timeout_s=5, supervision=SupervisionSettings(exit_timeout_s=10, restart_min_s=0.05))
    state_dir = tmp_path_factory.mktemp("state")
    async with EmbeddedTriton(repository, state_dir=state_dir, settings=settings, environment=os.environ) as started:
        yield started


@pytest.fixture
def figures() -> Figures:
    return Figures()


@asynccontextmanager
async def _upstream(triton: EmbeddedTriton, figures: Figures, room: int = _ROOM) -> AsyncIterator[TritonUpstream]:
    settings = UpstreamSettings(address=triton.grpc_address, shared_memory_bytes=room)
    made = TritonUpstream(settings, 64 * MEBIBYTE, figures)
    try:
        await check(made)
        yield made
    finally:
        await made.close()


def _array(seed: int, size: int = _LARGE) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def _request(array: "np.ndarray[Any, Any]", wait_ms: int | None = None, **changes: Any) -> ModelInferRequest:
    request = ModelInferRequest(model_name="sums", model_version="1", id="7")
    request.inputs.add(name="x", **({"datatype": "UINT8", "shape": array.shape} | changes))
    request.raw_input_contents.append(array.tobytes())
    if wait_ms is not None:
        request.inputs.add(name="wait_ms", datatype="INT32", shape=[1])
        request.raw_input_contents.append(np.array([wait_ms], np.int32).tobytes())
    return request


async def _ask(up: TritonUpstream, request: ModelInferRequest, deadline: float | None = None) -> ModelInferResponse:
    answer = await up.infer("sums", "1", bytes(request.SerializeToString()), deadline or soon())
    return ModelInferResponse.FromString(answer)


async def _sum(up: TritonUpstream, array: "np.ndarray[Any, Any]", wait_ms: int | None = None) -> int:
    answer = await _ask(up, _request(array, wait_ms))
    values = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
    assert int.from_bytes(values["size"], "little") == array.size
    return int.from_bytes(values["sum"], "little")


async def _refusal(up: TritonUpstream, request: ModelInferRequest) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        await _ask(up, request)
    return refused.value


async def _registered(up: TritonUpstream) -> set[str]:
    """The names of the regions that Triton has."""
    (replica,) = up.members()
    answer = await replica.link.call("SystemSharedMemoryStatus", b"", 5.0)
    return set(SystemSharedMemoryStatusResponse.FromString(answer).regions)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def _regions(up: TritonUpstream) -> Regions:
    return up._handover._regions


def _idle(up: TritonUpstream) -> list[Region]:
    return [region for region in _regions(up).all if _regions(up).is_idle(region)]


def _files() -> set[str]:
    return {path.name for path in regions.SHARED_MEMORY.glob("tidegate_region_*")}


async def test_the_answer_is_the_same_by_both_ways(triton: EmbeddedTriton, figures: Figures) -> None:
    request = _request(_array(1, 4_816_896), wait_ms=1)
    request.outputs.add(name="sum")
    async with _upstream(triton, figures) as up, _upstream(triton, figures, room=0) as other:
        assert await _ask(up, request) == await _ask(other, request)
    assert figures.ways == ["shared_memory"]


async def test_each_of_many_callers_gets_the_answer_to_its_own(triton: EmbeddedTriton, figures: Figures) -> None:
    """With room for half of them at a time, so that regions pass from one to the next."""
    arrays = [_array(seed, _LARGE + 1_000 * seed) for seed in range(300)]
    turns = asyncio.Semaphore(16)

    async def ask(up: TritonUpstream, array: "np.ndarray[Any, Any]") -> int:
        async with turns:
            return await _sum(up, array)

    async with _upstream(triton, figures, room=8 * MEBIBYTE) as up:
        answers = await asyncio.gather(*(ask(up, array) for array in arrays))
        assert sum(region.size for region in _regions(up).all) <= 8 * MEBIBYTE
    assert answers == [int(array.sum(dtype=np.uint64)) for array in arrays]
    assert set(figures.ways) == {"shared_memory", "no_room"}
    assert Counter(figures.ways)["shared_memory"] >= 100


async def test_a_region_that_triton_may_read_is_not_given_to_another(
    triton: EmbeddedTriton, figures: Figures, repository: Path
) -> None:
    """Of three calls one is in the model and one waits for it when they are given up."""
    began = repository / "sums" / "1" / "began"
    began.unlink(missing_ok=True)
    async with _upstream(triton, figures) as up:
        working = asyncio.create_task(_ask(up, _request(_array(1), wait_ms=1_000)))
        await _until(began.exists)
        waiting = asyncio.create_task(_ask(up, _request(_array(2))))
        late = asyncio.create_task(_ask(up, _request(_array(3)), soon(0.2)))
        with pytest.raises(DeadlineExceeded):
            await late
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
        held = set(_regions(up).all)
        names = {region.name for region in held}
        assert len(held) == 3
        array = _array(4)
        assert await _sum(up, array) == array.sum(dtype=np.uint64)
        (other,) = set(_regions(up).all) - held
        # Only after the model was done with the first could the fourth be answered; what was before it is let go of.
        await _until(lambda: set(_idle(up)) == held | {other})
        assert await _registered(up) == {other.name}
        assert await _sum(up, array) == array.sum(dtype=np.uint64)
        assert len(_regions(up).all) == 4
        assert names.isdisjoint(region.name for region in held), "a request that comes late would find its region"
    assert _files() & {region.key for region in held} == set()


async def test_a_region_stays_where_it_is_while_triton_does_not_say_that_it_let_go(figures: Figures) -> None:
    async with replicas(1) as (one,), upstream([one], figures, shared_memory_bytes=_ROOM) as up:
        one.infer = hangs
        request = bytes(_request(_array(1)).SerializeToString())
        with pytest.raises(DeadlineExceeded):
            await up.infer("digits", "1", request, soon(0.2))
        await _until(lambda: one.asked.count("SystemSharedMemoryStatus") >= 3)
        assert _idle(up) == []


async def test_a_triton_that_was_started_again_is_told_again(
    triton: EmbeddedTriton, figures: Figures, repository: Path
) -> None:
    began = repository / "sums" / "1" / "began"
    array = _array(1)
    async with _upstream(triton, figures) as up:
        await asyncio.gather(*(_sum(up, array) for _ in range(2)))
        began.unlink(missing_ok=True)
        working = asyncio.create_task(_ask(up, _request(array, wait_ms=30_000)))
        await _until(began.exists)
        assert triton.pid is not None
        before = triton.restarts
        os.kill(triton.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await working
        assert len(_idle(up)) == 1
        await _until(lambda: triton.restarts > before)
        await triton.wait_until_ready()
        await _until(lambda: len(_idle(up)) == 2)
        async with asyncio.timeout(20):
            while not up.answering():
                await check(up)
                await asyncio.sleep(0.05)
        for _ in range(2):
            assert await _sum(up, array) == array.sum(dtype=np.uint64)
        await _until(lambda: len(_idle(up)) == 2)
    assert figures.ways == ["shared_memory", "shared_memory", "unknown_region", "shared_memory"]


async def test_where_there_is_no_room_grpc_has_it(
    triton: EmbeddedTriton, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = _array(1)
    async with _upstream(triton, figures, room=1) as up:
        assert await _sum(up, array) == array.sum(dtype=np.uint64)
    monkeypatch.setattr(regions, "SHARED_MEMORY", Path("/nowhere"))
    async with _upstream(triton, figures) as up:
        assert await _sum(up, array) == array.sum(dtype=np.uint64)
    assert figures.ways == ["no_room"] * 2


async def test_small_regions_make_room_for_a_large_one(triton: EmbeddedTriton, figures: Figures) -> None:
    large = _array(1, 2 * MEBIBYTE)
    async with _upstream(triton, figures, room=2 * MEBIBYTE) as up:
        await asyncio.gather(*(_sum(up, _array(seed)) for seed in range(2)))
        assert await _sum(up, large) == large.sum(dtype=np.uint64)
        await _until(lambda: not _regions(up).all)
        assert await _sum(up, large) == large.sum(dtype=np.uint64)
    assert figures.ways == ["shared_memory", "shared_memory", "no_room", "shared_memory"]


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"shape": [_LARGE + 1]}, "unsuited"),
        ({"shape": [-_LARGE]}, "unsuited"),
        ({"datatype": "UINT9"}, "unsuited"),
        ({"datatype": "BYTES"}, "unsuited"),
        ({"datatype": "INT8"}, "shared_memory"),
        ({"shape": [2, _LARGE // 2]}, "shared_memory"),
        ({"name": "y"}, "shared_memory"),
    ],
)
async def test_what_triton_refuses_it_refuses_in_the_same_words(
    triton: EmbeddedTriton, figures: Figures, changes: dict[str, Any], way: str
) -> None:
    request = _request(_array(1))
    for name, value in changes.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        else:
            setattr(request.inputs[0], name, value)
    async with _upstream(triton, figures) as up, _upstream(triton, figures, room=0) as other:
        error, expected = await _refusal(up, request), await _refusal(other, request)
    assert isinstance(error, InvalidArgument) and type(error) is type(expected)
    assert error.message == expected.message
    assert figures.ways in ([way], [])  # An attempt that failed is not one that was sent.


async def test_a_models_own_error_is_its_own_and_the_region_comes_back(
    triton: EmbeddedTriton, figures: Figures
) -> None:
    async with _upstream(triton, figures) as up:
        error = await _refusal(up, _request(np.zeros(_LARGE, np.uint8)))
        assert isinstance(error, Internal) and error.message.endswith("all is nothing")
        await _until(lambda: len(_idle(up)) == 1)


async def test_the_end_leaves_no_file_and_no_region(triton: EmbeddedTriton, figures: Figures) -> None:
    async with _upstream(triton, figures) as up, _upstream(triton, figures, room=0) as other:
        await _sum(up, _array(1))
        (region,) = _regions(up).all
        assert await _registered(other) == {region.name}
        assert (regions.SHARED_MEMORY / region.key).stat().st_mode & 0o777 == 0o600
        await up.close()
        assert region.key not in _files()
        assert await _registered(other) == set()


async def test_at_the_end_triton_is_asked_more_than_once_to_let_go(figures: Figures) -> None:
    async with replicas(1) as (one,), upstream([one], figures, shared_memory_bytes=_ROOM) as up:
        one.serves = {("sums", "1")}
        await up.infer("sums", "1", bytes(_request(_array(1)).SerializeToString()), soon())
        await up.close()
        assert one.asked.count("SystemSharedMemoryUnregister") == one.asked.count("SystemSharedMemoryStatus") == 4
    assert figures.ways == ["shared_memory"]


async def test_what_a_killed_worker_left_is_swept_and_what_a_living_one_has_is_not(
    triton: EmbeddedTriton, figures: Figures
) -> None:
    code = "import sys; from gateway.upstream.regions import Region; region = Region(1 << 20); print(region.key, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        key = worker.stdout.readline().strip()
        name = f"{key}.0"
        async with _upstream(triton, figures) as living:
            await _sum(living, _array(1))
            (kept,) = _regions(living).all
            (replica,) = living.members()
            register = SystemSharedMemoryRegisterRequest(name=name, key=f"/{key}", byte_size=1 << 20)
            await replica.link.call("SystemSharedMemoryRegister", register.SerializeToString(), 5.0)
            assert await _registered(living) == {name, kept.name}
            for files, expected in (({key, kept.key}, {name, kept.name}), ({kept.key}, {kept.name})):
                async with _upstream(triton, figures) as successor:
                    await successor._handover.sweep(successor.members())
                    assert await _registered(successor) == expected
                    assert _files() & {key, kept.key} == files
                worker.kill()
                worker.wait()
            await _sum(living, _array(1))
    assert figures.ways == ["shared_memory"] * 2


async def test_another_replica_is_told_in_place_of_one_that_is_lost(figures: Figures) -> None:
    request = bytes(_request(_array(1)).SerializeToString())
    async with replicas(2) as two, upstream(two, figures, retry_min=50, shared_memory_bytes=_ROOM) as up:
        two[0].infer = fails(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        two[0].silent = True
        two[0].serves = two[1].serves = {("sums", "1")}
        await check(up)
        answers = {ModelInferResponse.FromString(await up.infer("sums", "1", request, soon())).id for _ in range(10)}
        assert answers == {"b"}
    assert set(figures.ways) == {"shared_memory"}


async def test_the_region_of_a_hedged_call_waits_for_the_slower_replica(figures: Figures) -> None:
    request = bytes(_request(_array(1)).SerializeToString())
    async with replicas(2) as two, upstream(two, figures, hedge=True, shared_memory_bytes=_ROOM) as up:
        two[0].serves = two[1].serves = {("sums", "1")}
        await check(up)
        for _ in range(20):
            await up.infer("sums", "1", request, soon())
        (region,) = _idle(up)
        for each in two:
            each.infer = hangs
        asked = asyncio.create_task(up.infer("sums", "1", request, soon()))
        await _until(lambda: bool(figures.hedges) and all(each.inferences for each in two))
        two[1].infer = two[0].infer = None
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert _idle(up) == []
        await _until(lambda: all("SystemSharedMemoryUnregister" in each.asked for each in two))
        await up.infer("sums", "1", request, soon())
        assert region not in _idle(up) and len(_regions(up).all) > 1


async def test_a_replica_that_refuses_regions_is_asked_through_grpc(figures: Figures) -> None:
    request = bytes(_request(_array(1)).SerializeToString())
    async with replicas(1) as (one,), upstream([one], figures, shared_memory_bytes=_ROOM) as up:
        one.serves = {("sums", "1")}
        one.register = fails(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'x'")
        for _ in range(2):
            await up.infer("sums", "1", request, soon())
        assert one.asked.count("SystemSharedMemoryRegister") == 1
    assert figures.ways == ["refused"] * 2


async def test_a_caller_without_time_does_not_make_a_replica_one_that_refuses(figures: Figures) -> None:
    request = bytes(_request(_array(1)).SerializeToString())
    async with replicas(1) as (one,), upstream([one], figures, shared_memory_bytes=_ROOM) as up:
        one.serves = {("sums", "1")}
        one.register = hangs
        with pytest.raises(DeadlineExceeded):
            await up.infer("sums", "1", request, soon(0.2))
        one.register = None
        await up.infer("sums", "1", request, soon())
    assert figures.ways == ["refused", "shared_memory"]
