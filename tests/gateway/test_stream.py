"""A stream is let in once; its requests are bounded, answered and measured one by one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse

from gateway.admission.concurrency import Concurrency
from gateway.admission.in_flight import InFlightLimit, Places
from gateway.admission.local_limiter import LocalLimiter
from gateway.admission.settings import ConcurrencySettings
from gateway.call import Headers, Identity, Limit, Resource, Scope, StreamCall
from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument, Overloaded, Unauthenticated, Unavailable
from gateway.metrics.instruments import PrometheusMetrics
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.watchers import CallWatchers
from gateway.ports import Route, StreamAnswer
from gateway.settings import LimiterSettings, LimitSettings
from gateway.stream import StreamService
from tests.gateway.fakes import FakeAuthenticator, NoRollouts, soon
from tests.gateway.tritons import Figures


class FakeTriton:
    """Keeps what it is asked; answers when a test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[ModelInferRequest | None] = asyncio.Queue()
        self.cancelled = False
        self._answers: asyncio.Queue[StreamAnswer | GatewayError | None] = asyncio.Queue()

    @asynccontextmanager
    async def stream(self, deadline: float) -> AsyncIterator["FakeTriton"]:
        try:
            yield self
        except BaseException:
            self.cancelled = True
            raise

    async def send(self, request: bytes, decoupled: bool) -> None:
        self.asked.put_nowait(ModelInferRequest.FromString(request))

    async def done(self) -> None:
        self.asked.put_nowait(None)

    async def answers(self) -> AsyncIterator[StreamAnswer]:
        while (answer := await self._answers.get()) is not None:
            if isinstance(answer, GatewayError):
                raise answer
            yield answer

    def answer(self, request_id: str, text: str = "", *, final: bool = True, error: GatewayError | None = None) -> None:
        response = ModelStreamInferResponse(infer_response=ModelInferResponse(id=request_id, model_version=text))
        body = bytes(response.SerializeToString())
        self._answers.put_nowait(StreamAnswer(body, request_id, final, final and not text and not error, error))

    def end(self, error: GatewayError | None = None) -> None:
        self._answers.put_nowait(error)


class FixedRouter:
    def __init__(self, decoupled: bool) -> None:
        self.decoupled = decoupled

    def route(
        self, model: str, version: str, identity: Identity, headers: Headers, sequence: str | None = None
    ) -> Route:
        return Route(model, "1", cacheable=True, takes_timeout=True, batches=True, decoupled=self.decoupled)

    async def look_again(self) -> None: ...

    def explain(self, model: str) -> str | None:
        return f"{model} takes images"


class Stage:
    """A stream service before a fake Triton, and a caller."""

    def __init__(
        self,
        error: Exception | None = None,
        max_streams: int = 1,
        max_calls: int = 10,
        max_in_flight: int = 10,
        identity: Identity | None = None,
        turns: int = 10,
        decoupled: bool = False,
    ) -> None:
        self.authenticator = FakeAuthenticator(error, identity)
        self.triton = FakeTriton()
        self.registry = CollectorRegistry()
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.seen: asyncio.Queue[ModelStreamInferResponse] = asyncio.Queue()
        self.takes_answers = asyncio.Event()
        self.takes_answers.set()
        limits = ConcurrencySettings(floor=turns, initial=turns, ceiling=turns)
        self.concurrency = Concurrency(limits, asyncio.get_running_loop().time, Figures())
        self.rollouts = NoRollouts()
        self.service = StreamService(
            authenticator=self.authenticator,
            streams=Places(max_streams, "streams are open", "streams"),
            admission=InFlightLimit(LimitSettings(max_in_flight=max_calls)),
            limiter=LocalLimiter(LimiterSettings(), lambda: 0.0),
            router=FixedRouter(decoupled),
            concurrency=self.concurrency,
            upstream=self.triton,
            rollouts=self.rollouts,
            metrics=PrometheusMetrics(self.registry, MetricsSettings(), LimitSettings(), CallWatchers()),
            max_in_flight=max_in_flight,
        )

    def start(self, deadline_s: float = 10.0) -> asyncio.Task[None]:
        async def send(body: bytes, error: GatewayError | None) -> None:
            assert (error is not None) == bool(ModelStreamInferResponse.FromString(body).error_message)
            self.seen.put_nowait(ModelStreamInferResponse.FromString(body))
            await self.takes_answers.wait()

        call = StreamCall("key", soon(deadline_s), self.requests.get, send)
        return asyncio.create_task(self.service.infer(call))

    def ask(self, *request_ids: str, empty_final: bool = False) -> None:
        for request_id in request_ids:
            request = ModelInferRequest(model_name="digits", id=request_id)
            if empty_final:
                request.parameters["triton_enable_empty_final_response"].bool_param = True
            self.requests.put_nowait(request.SerializeToString())

    async def asked(self) -> ModelInferRequest:
        request = await self.triton.asked.get()
        assert request is not None
        return request

    def calls(self, outcome: str) -> float | None:
        labels = {"stage": "total", "model": "digits", "version": "1", "outcome": outcome}
        return self.registry.get_sample_value("tidegate_stage_duration_seconds_count", labels)

    def streams(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("tidegate_stream_duration_seconds_count", {"outcome": outcome})


async def test_requests_and_answers_pass_and_are_counted() -> None:
    stage = Stage()
    stream = stage.start()
    stage.ask("a", "b")
    assert [(await stage.asked()).id, (await stage.asked()).id] == ["a", "b"]
    stage.triton.answer("b", "first", final=False)
    stage.triton.answer("a", "second")
    stage.triton.answer("b", "third")
    versions = [(await stage.seen.get()).infer_response.model_version for _ in range(3)]
    assert versions == ["first", "second", "third"]
    stage.requests.put_nowait(None)
    assert await stage.triton.asked.get() is None
    stage.triton.end()
    await stream
    assert len(stage.authenticator.asked) == 1
    assert (stage.calls("ok"), stage.streams("ok")) == (2, 1)
    assert stage.registry.get_sample_value("tidegate_open_streams") == 0
    assert stage.registry.get_sample_value("tidegate_in_flight_calls") == 0


async def test_an_unknown_callers_stream_is_not_read() -> None:
    stage = Stage(Unauthenticated("who?"))
    stage.ask("a")
    with pytest.raises(Unauthenticated):
        await stage.start()
    assert stage.requests.qsize() == 1
    assert stage.streams("unauthenticated") == 1


async def test_the_next_request_is_not_read_before_one_is_answered() -> None:
    stage = Stage(max_in_flight=2)
    stream = stage.start()
    stage.ask("a", "a", "c", "d")
    assert [(await stage.asked()).id, (await stage.asked()).id] == ["a", "a"]
    stage.triton.answer("a", "not the last", final=False)
    await stage.seen.get()
    assert (stage.triton.asked.qsize(), stage.requests.qsize()) == (0, 2)
    stage.triton.answer("a", "last")
    assert (await stage.asked()).id == "c"
    assert stage.requests.qsize() == 1
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def test_an_empty_last_response_is_shown_to_who_asked_for_it() -> None:
    stage = Stage()
    stream = stage.start()
    stage.ask("plain")
    stage.ask("marked", empty_final=True)
    for _ in range(2):
        assert (await stage.asked()).parameters["triton_enable_empty_final_response"].bool_param
    stage.triton.answer("plain")
    stage.triton.answer("marked")
    stage.triton.end()
    await stream
    assert stage.seen.get_nowait().infer_response.id == "marked"
    assert stage.seen.empty()


async def test_what_is_wrong_with_one_request_is_told_in_the_stream() -> None:
    stage = Stage(max_calls=1)
    stream = stage.start()
    stage.requests.put_nowait(b"\x0a\x05abc")
    assert "says 5 bytes" in (await stage.seen.get()).error_message
    stage.ask("first", "too many")
    refused = await stage.seen.get()
    assert "in flight" in refused.error_message and refused.infer_response.id == "too many"
    await stage.asked()
    stage.triton.answer("first", error=InvalidArgument("no"))
    failed = await stage.seen.get()
    assert (failed.error_message, failed.infer_response.id) == ("no; digits takes images", "first")
    stage.ask("next")
    assert (await stage.asked()).id == "next"
    stage.triton.answer("next", "done")
    stage.triton.end()
    await stream
    assert (stage.calls("ok"), stage.calls("invalid_argument"), stage.streams("ok")) == (1, 1, 1)


async def test_streams_are_bounded() -> None:
    stage = Stage(max_streams=1)
    first = stage.start()
    stage.ask("a")
    await stage.asked()
    with pytest.raises(Overloaded):
        await stage.start()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert stage.triton.cancelled
    assert (stage.calls("cancelled"), stage.streams("cancelled"), stage.streams("overloaded")) == (1, 1, 1)


async def test_the_deadline_ends_the_stream_and_is_told_to_tritons_queue() -> None:
    stage = Stage()
    stream = stage.start(deadline_s=0.2)
    stage.ask("a")
    assert 0 < (await stage.asked()).parameters["timeout"].int64_param <= 200_000
    with pytest.raises(DeadlineExceeded):
        await stream
    assert stage.triton.cancelled


async def test_tritons_end_is_the_streams() -> None:
    stage = Stage()
    stream = stage.start()
    stage.ask("a")
    await stage.asked()
    stage.triton.end(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await stream
    assert (stage.calls("unavailable"), stage.streams("unavailable")) == (1, 1)


async def test_a_request_that_tritons_end_leaves_unanswered_did_not_go_well() -> None:
    stage = Stage()
    stream = stage.start()
    stage.ask("a")
    await stage.asked()
    stage.triton.end()
    await stream
    assert (stage.calls("unavailable"), stage.calls("ok"), stage.streams("ok")) == (1, None, 1)


async def test_each_request_must_name_a_model_of_its_caller() -> None:
    stage = Stage(identity=Identity("key:a", frozenset({Scope.INFER}), models=("cats-*",)))
    stream = stage.start()
    stage.ask("a")
    refused = await stage.seen.get()
    assert "'digits'" in refused.error_message and refused.infer_response.id == "a"
    assert stage.triton.asked.empty()
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def test_each_request_counts_against_its_callers_limits_until_it_is_answered() -> None:
    limit = Limit("key:a", Resource.IN_FLIGHT, 1)
    stage = Stage(identity=Identity("key:a", frozenset({Scope.INFER}), limits=(limit,)))
    stream = stage.start()
    stage.ask("first", "second")
    assert (await stage.asked()).id == "first"
    assert (await stage.seen.get()).infer_response.id == "second"
    stage.triton.answer("first", "done")
    await stage.seen.get()
    stage.ask("third")
    assert (await stage.asked()).id == "third"
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def test_a_request_has_a_turn_of_its_model_until_its_last_answer() -> None:
    stage = Stage(turns=1)
    stream = stage.start()
    stage.ask("first", "second")
    assert (await stage.asked()).id == "first"
    stage.triton.answer("first", "not the last", final=False)
    await stage.seen.get()
    assert stage.triton.asked.empty() and not stage.concurrency.is_free("digits")
    stage.triton.answer("first", "last")
    assert (await stage.asked()).id == "second"
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    assert stage.concurrency.is_free("digits")


async def test_the_requests_of_a_decoupled_model_wait_for_no_turn() -> None:
    stage = Stage(turns=1, decoupled=True)
    stream = stage.start()
    stage.ask("first", "second")
    assert [(await stage.asked()).id, (await stage.asked()).id] == ["first", "second"]
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def test_a_caller_that_takes_no_answers_has_no_turns_and_gets_no_more() -> None:
    stage = Stage(turns=2)
    stream = stage.start()
    stage.ask("answered", "open")
    assert [(await stage.asked()).id, (await stage.asked()).id] == ["answered", "open"]
    stage.takes_answers.clear()
    stage.triton.answer("answered", "done")
    gate = stage.concurrency._gate("digits")
    async with asyncio.timeout(5):
        while gate.under_way:
            await asyncio.sleep(0.01)
    stage.ask("read before", "later")
    assert (await stage.asked()).id == "read before"
    assert not gate.under_way and stage.requests.qsize() == 1
    stage.takes_answers.set()
    assert (await stage.asked()).id == "later"
    assert not stage.requests.qsize()
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    assert gate.under_way == 0


async def test_what_becomes_of_each_request_is_told_to_who_watches_versions() -> None:
    stage = Stage()
    stream = stage.start()
    stage.ask("good", "bad", "unanswered")
    for _ in range(3):
        await stage.asked()
    stage.triton.answer("good", "done")
    stage.triton.answer("bad", error=InvalidArgument("no"))
    stage.triton.end(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await stream
    assert [error if error is None else type(error) for _, error in stage.rollouts.seen] == [None, InvalidArgument]
