"""Several replicas as one, over real gRPC."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, RepositoryIndexResponse

from gateway.errors import DeadlineExceeded, Internal, NotFound, Unavailable
from gateway.ports import Sequence
from gateway.upstream.triton import TritonUpstream
from tests.gateway.fakes import soon
from tests.gateway.tritons import Figures, StandIn, check, fails, hangs, replicas, upstream

_LOST = fails(grpc.StatusCode.UNAVAILABLE, "Socket closed")
_STUB = fails(grpc.StatusCode.INTERNAL, "Failed to process the request(s), message: Stub process 'x' is not healthy.")


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
async def two() -> AsyncIterator[list[StandIn]]:
    async with replicas(2) as started:
        yield started


async def ask(up: TritonUpstream, deadline: float | None = None, sequence: Sequence | None = None) -> str:
    """The name of who answers."""
    request = ModelInferRequest(model_name="digits", model_version="1").SerializeToString()
    answer = await up.infer("digits", "1", bytes(request), deadline or soon(), sequence)
    return str(ModelInferResponse.FromString(answer).id)


async def test_a_busy_replica_is_given_less(two: list[StandIn], figures: Figures) -> None:
    release = asyncio.Event()

    async def wait(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await release.wait()
        return await two[0].answer(request, context)

    two[0].infer = wait
    async with upstream(two, figures) as up:
        stuck: list[asyncio.Task[str]] = []
        while two[0].inferences < 1:
            stuck.append(asyncio.create_task(ask(up)))
            await asyncio.sleep(0.01)
        assert Counter([await ask(up) for _ in range(50)]) == {"b": 50}
        release.set()
        await asyncio.gather(*stuck)


async def test_a_lost_call_is_answered_by_another_replica(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, retry_min=10) as up:
        two[0].infer = _LOST
        two[0].silent = True
        assert {await ask(up) for _ in range(20)} == {"b"}
        assert set(figures.retries) == {("digits", "ok")}
        assert two[0].inferences <= 1, "it was asked after it was lost"


async def test_a_closed_port_is_out_at_once_and_back_by_itself(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, slow_start_s=0) as up:
        await two[0].stop()
        assert {await ask(up) for _ in range(20)} == {"b"}
        await check(up)
        assert figures.up == {0: False, 1: True}
        await two[0].start()
        async with asyncio.timeout(10):
            while not figures.up[0]:
                await asyncio.sleep(0.05)
                await check(up)
        assert {await ask(up) for _ in range(50)} == {"a", "b"}


async def test_without_a_replica_a_call_fails_at_once(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures) as up:
        for each in two:
            await each.stop()
        with pytest.raises(Unavailable):
            await check(up)
        with pytest.raises(Unavailable, match="no inference server"):
            await ask(up)


async def test_a_model_whose_process_died_is_asked_elsewhere_and_only_that_model(
    two: list[StandIn], figures: Figures
) -> None:
    for each in two:
        each.serves.add(("other", "1"))
    async with upstream(two, figures) as up:
        two[0].infer = _STUB
        assert {await ask(up) for _ in range(30)} == {"b"}
        await check(up)
        assert {await ask(up) for _ in range(30)} == {"b"}
        assert figures.ejections == [0]
        two[0].infer = None
        request = bytes(ModelInferRequest(model_name="other", model_version="1").SerializeToString())
        answers = [await up.infer("other", "1", request, soon()) for _ in range(50)]
        assert {ModelInferResponse.FromString(answer).id for answer in answers} == {"a", "b"}


async def test_failures_in_a_row_eject_for_a_while_and_never_everyone(two: list[StandIn], figures: Figures) -> None:
    for each in two:
        each.infer = fails(grpc.StatusCode.INTERNAL, "boom")
    async with upstream(two, figures, failures_to_eject=3, eject_s=0.3, slow_start_s=0) as up:
        for _ in range(40):
            with pytest.raises(Internal):
                await ask(up)
        assert len(figures.ejections) == 1
        out = two[figures.ejections[0]]
        before = out.inferences
        for each in two:
            each.infer = None
        await ask(up)
        assert out.inferences == before
        async with asyncio.timeout(5):
            while out.inferences == before:
                await asyncio.sleep(0.05)
                await check(up)
                await ask(up)


async def test_a_silent_replicas_calls_are_given_up_and_answered_elsewhere(
    two: list[StandIn], figures: Figures
) -> None:
    async with upstream(two, figures, check_timeout_s=0.1, retry_min=10) as up:
        two[0].infer, two[0].silent = hangs, True
        calls = [asyncio.create_task(ask(up)) for _ in range(10)]
        while two[0].inferences + two[1].inferences < 10:
            await asyncio.sleep(0.01)
        await check(up)
        assert await asyncio.gather(*calls) == ["b"] * 10
        assert figures.up == {0: False, 1: True}


async def test_a_silent_replicas_streams_end_as_unavailable(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, check_timeout_s=0.1) as up, up.stream(soon()) as stream:

        async def read() -> None:
            async for _ in stream.answers():
                pass

        await stream.send(b"", False)
        reading = asyncio.create_task(read())
        async with asyncio.timeout(5):
            while not (asked := [each for each in two if "ModelStreamInfer" in each.asked]):
                await asyncio.sleep(0.01)
        asked[0].silent = True
        await check(up)
        with pytest.raises(Unavailable, match="stopped answering"):
            await reading


async def test_when_all_are_silent_they_are_asked_all_the_same(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, check_timeout_s=0.05) as up:
        for each in two:
            each.silent = True
        with pytest.raises(Unavailable):
            await check(up)
        assert {await ask(up) for _ in range(30)} == {"a", "b"}


async def test_a_replica_that_comes_back_rises_to_its_share(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, check_timeout_s=0.05, slow_start_s=600) as up:
        two[0].silent = True
        await check(up)
        two[0].silent = False
        await check(up)
        share = Counter([await ask(up) for _ in range(400)])["a"] / 400
        # A tenth of a half is 0.05; of 400 the chance of more than 0.12 is under 1e-6.
        assert 0 < share < 0.12


async def test_the_budget_bounds_what_is_asked_again() -> None:
    figures = Figures()
    async with replicas(3) as three:
        for each in three:
            each.infer = fails(grpc.StatusCode.UNAVAILABLE, "Server is stopping")
        async with upstream(three, figures) as up:
            for _ in range(200):
                await check(up)
                with pytest.raises(Unavailable):
                    await ask(up)
        attempts = sum(each.inferences for each in three)
        assert 200 < attempts <= 240
        assert ("digits", "no_budget") in figures.retries


async def test_no_attempt_is_made_past_the_deadline(two: list[StandIn], figures: Figures) -> None:
    for each in two:
        each.infer = hangs
    async with upstream(two, figures) as up:
        with pytest.raises(DeadlineExceeded):
            await ask(up, soon(0.1))
        assert two[0].inferences + two[1].inferences == 1


async def test_a_cancelled_call_is_cancelled_in_the_replica(two: list[StandIn], figures: Figures) -> None:
    ended = asyncio.Event()

    async def wait(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    two[0].infer = two[1].infer = wait
    async with upstream(two, figures) as up:
        call = asyncio.create_task(ask(up))
        while not two[0].inferences + two[1].inferences:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            await ended.wait()
        assert two[0].inferences + two[1].inferences == 1


async def test_a_version_gone_from_one_replica_is_found_in_another(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures) as up:
        two[0].serves.clear()
        assert {await ask(up) for _ in range(20)} == {"b"}
        two[1].serves.clear()
        with pytest.raises(NotFound):
            await ask(up)


async def test_a_version_that_is_not_everywhere_is_not_yet_offered(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures) as up:
        two[0].serves.add(("digits", "2"))
        index = RepositoryIndexResponse.FromString(await check(up))
        assert [(entry.name, entry.version) for entry in index.models] == [("digits", "1")]
        request = bytes(ModelInferRequest(model_name="digits", model_version="2").SerializeToString())
        answers = [await up.infer("digits", "2", request, soon()) for _ in range(20)]
        assert {ModelInferResponse.FromString(answer).id for answer in answers} == {"a"}


async def test_a_sequence_stays_with_its_replica_and_is_never_asked_twice(figures: Figures) -> None:
    async with replicas(3) as three, upstream(three, figures, slow_start_s=0) as up:

        async def step(number: int, starts: bool) -> str:
            return await ask(up, sequence=Sequence(f"digits {number}", starts))

        homes = {number: await step(number, True) for number in range(30)}
        assert set(homes.values()) == {"a", "b", "c"}
        assert {number: await step(number, False) for number in range(30)} == homes
        gone = three[0]
        await gone.stop()
        await check(up)
        for number, home in homes.items():
            if home == gone.name:
                with pytest.raises(Unavailable, match="begin the sequence again"):
                    await step(number, False)
                moved = await step(number, True)
                assert moved != gone.name
                assert await step(number, False) == moved
            else:
                assert await step(number, False) == home
        three[1].infer = _LOST
        lost = next(number for number, home in homes.items() if home == "b")
        before = three[1].inferences + three[2].inferences
        with pytest.raises(Unavailable):
            await step(lost, False)
        assert three[1].inferences + three[2].inferences == before + 1


async def test_a_slow_answer_is_asked_for_twice_and_the_first_counts(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures, hedge=True) as up:
        for _ in range(100):
            await ask(up)
        before = len(figures.hedges)
        two[0].infer = hangs
        while len(figures.hedges) == before:  # Which of two idle replicas is asked first is drawn by lot.
            assert await ask(up) == "b"
        assert len(figures.hedges) <= 21


async def test_a_load_goes_to_every_replica(two: list[StandIn], figures: Figures) -> None:
    async with upstream(two, figures) as up:
        await up.call("RepositoryModelLoad", b"", soon())
        assert [each.asked.count("RepositoryModelLoad") for each in two] == [1, 1]
