import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway import wire
from gateway.admission.in_flight import InFlightLimit
from gateway.admission.local_limiter import LocalLimiter
from gateway.call import CacheStatus, Headers, Identity, InferenceCall, Limit, Resource, Scope
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidArgument,
    LimitExceeded,
    Overloaded,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
)
from gateway.metrics.instruments import PrometheusMetrics
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.watchers import CallWatchers
from gateway.ports import Route
from gateway.service import InferenceService
from gateway.settings import LimiterSettings, LimitSettings
from tests.gateway.fakes import FakeAuthenticator, FakeUpstream, NoLimit, NoRollouts, answers_in_memory, soon


class FixedRouter:
    def __init__(self, cacheable: bool = True, takes_timeout: bool = False) -> None:
        self.route_to = Route("digits", "1", cacheable, takes_timeout, batches=True)

    def route(
        self, model: str, version: str, identity: Identity, headers: Headers, sequence: str | None = None
    ) -> Route:
        return self.route_to

    async def look_again(self) -> None: ...

    def explain(self, model: str) -> str | None:
        return "digits takes images"


class Stage:
    """A service between fakes."""

    def __init__(
        self,
        answer: Callable[[bytes], Awaitable[bytes]] | None = None,
        *,
        authenticator: FakeAuthenticator | None = None,
        router: FixedRouter | None = None,
        limits: LimitSettings | None = None,
    ) -> None:
        self.upstream = FakeUpstream(ModelInfer=answer or _echo)
        self.rollouts = NoRollouts()
        self.authenticator = authenticator or FakeAuthenticator()
        self.registry = CollectorRegistry()
        self.bodies_read = 0
        self.service = InferenceService(
            authenticator=self.authenticator,
            admission=InFlightLimit(limits or LimitSettings()),
            limiter=LocalLimiter(LimiterSettings(), lambda: 0.0),
            router=router or FixedRouter(),
            answers=answers_in_memory(),
            concurrency=NoLimit(),
            upstream=self.upstream,
            rollouts=self.rollouts,
            metrics=PrometheusMetrics(self.registry, MetricsSettings(), LimitSettings(), CallWatchers()),
        )

    def call(
        self, body: bytes | None = None, deadline_s: float = 10.0, cache_control: str | None = None
    ) -> InferenceCall:
        async def read_body() -> bytes:
            self.bodies_read += 1
            return _request() if body is None else body

        return InferenceCall("key", soon(deadline_s), read_body, {"cache-control": cache_control}.get)

    def counted(self, outcome: str, version: str = "1") -> float | None:
        model = "digits" if version == "1" else "unknown"
        labels = {"stage": "total", "model": model, "version": version, "outcome": outcome}
        return self.registry.get_sample_value("tidegate_stage_duration_seconds_count", labels)


def _request(request_id: str = "", **parameters: int) -> bytes:
    request = ModelInferRequest(model_name="digits", id=request_id, raw_input_contents=[b"image"])
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return bytes(request.SerializeToString())


async def _echo(request: bytes) -> bytes:
    asked = ModelInferRequest.FromString(request)
    answer = ModelInferResponse(model_version="1", id=asked.id, raw_output_contents=asked.raw_input_contents)
    return bytes(answer.SerializeToString())


async def test_an_unknown_callers_body_is_not_read() -> None:
    stage = Stage(authenticator=FakeAuthenticator(Unauthenticated("who?")))
    with pytest.raises(Unauthenticated):
        await stage.service.infer(stage.call())
    assert stage.authenticator.asked == [("key", Scope.INFER)]
    assert (stage.bodies_read, stage.upstream.asked) == (0, [])
    assert stage.counted("unauthenticated", "unknown") == 1


async def test_equal_requests_are_asked_once_and_answered_with_their_own_ids() -> None:
    stage = Stage()
    replies = [await stage.service.infer(stage.call(_request(request_id))) for request_id in ("a", "b", "")]
    assert [reply.cache for reply in replies] == [CacheStatus.MISS, CacheStatus.HIT, CacheStatus.HIT]
    assert [ModelInferResponse.FromString(reply.body).id for reply in replies] == ["a", "b", ""]
    assert len(stage.upstream.asked) == 1
    assert stage.counted("ok") == 3


async def test_a_model_that_did_not_opt_in_is_asked_each_time() -> None:
    stage = Stage(router=FixedRouter(cacheable=False))
    replies = [await stage.service.infer(stage.call(_request("a"))) for _ in range(2)]
    assert [reply.cache for reply in replies] == [CacheStatus.BYPASS] * 2
    assert [request for _, request in stage.upstream.asked] == [_request("a") + wire.version_field("1")] * 2


async def test_a_sequence_is_never_answered_from_the_cache() -> None:
    stage = Stage()
    body = _request(sequence_id=5)
    assert [(await stage.service.infer(stage.call(body))).cache for _ in range(2)] == [CacheStatus.BYPASS] * 2


async def test_a_sequence_goes_one_way() -> None:
    stage = Stage()
    for sequence in (5, 5, 6):
        await stage.service.infer(stage.call(_request(sequence_id=sequence)))
    await stage.service.infer(stage.call())
    first, again, other, none = stage.upstream.sequences
    assert first == again != other and first is not None and none is None


async def test_a_caller_may_have_it_asked_anew_or_not_kept() -> None:
    stage = Stage()
    directives = ("no-store", None, "max-age=1, No-Cache", None, "no-cache, no-store")
    replies = [await stage.service.infer(stage.call(cache_control=directive)) for directive in directives]
    assert [reply.cache.value for reply in replies] == ["bypass", "miss", "miss", "hit", "bypass"]
    assert len(stage.upstream.asked) == 4


async def test_equal_calls_at_the_same_time_are_one_with_their_own_ids() -> None:
    release = asyncio.Event()

    async def answer(request: bytes) -> bytes:
        await release.wait()
        return await _echo(request)

    stage = Stage(answer)
    calls = [asyncio.create_task(stage.service.infer(stage.call(_request(request_id)))) for request_id in "abc"]
    while stage.bodies_read < 3:
        await asyncio.sleep(0)
    release.set()
    replies = await asyncio.gather(*calls)
    assert [reply.cache.value for reply in replies] == ["miss", "coalesced", "coalesced"]
    assert [ModelInferResponse.FromString(reply.body).id for reply in replies] == ["a", "b", "c"]
    assert len(stage.upstream.asked) == 1
    for status, count in (("miss", 1), ("coalesced", 2)):
        labels = {"model": "digits", "status": status}
        assert stage.registry.get_sample_value("tidegate_cache_requests_total", labels) == count


async def test_a_failure_is_not_kept() -> None:
    failures = iter([InvalidArgument("no"), None])

    async def answer(request: bytes) -> bytes:
        if (failure := next(failures)) is not None:
            raise failure
        return await _echo(request)

    stage = Stage(answer)
    with pytest.raises(InvalidArgument, match="no; digits takes images"):
        await stage.service.infer(stage.call())
    assert (await stage.service.infer(stage.call())).cache is CacheStatus.MISS


async def test_what_is_left_of_the_deadline_is_handed_to_tritons_queue() -> None:
    stage = Stage(router=FixedRouter(cacheable=False, takes_timeout=True))
    call = stage.call(deadline_s=2.0)
    await stage.service.infer(call)
    sent = ModelInferRequest.FromString(stage.upstream.asked[0][1])
    assert 1_000_000 < sent.parameters["timeout"].int64_param <= 2_000_000
    assert stage.upstream.deadlines == [call.deadline]
    await stage.service.infer(stage.call(_request(timeout=7)))
    assert ModelInferRequest.FromString(stage.upstream.asked[1][1]).parameters["timeout"].int64_param == 7


async def test_a_deadline_ends_the_call_wherever_it_is() -> None:
    async def never(request: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    stage = Stage(never)
    with pytest.raises(DeadlineExceeded):
        await stage.service.infer(stage.call(deadline_s=0.01))
    assert stage.counted("deadline_exceeded") == 1


async def test_a_cancelled_call_cancels_what_it_caused() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(request: bytes) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    stage = Stage(answer)
    task = asyncio.create_task(stage.service.infer(stage.call()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert stage.counted("cancelled") == 1


async def test_what_is_over_the_bound_is_refused_before_its_body_is_read() -> None:
    release = asyncio.Event()

    async def answer(request: bytes) -> bytes:
        await release.wait()
        return await _echo(request)

    stage = Stage(answer, limits=LimitSettings(max_in_flight=1))
    first = asyncio.create_task(stage.service.infer(stage.call()))
    while not stage.upstream.asked:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 calls"):
        await stage.service.infer(stage.call())
    assert stage.bodies_read == 1
    release.set()
    await first
    await stage.service.infer(stage.call())


async def test_a_model_that_the_key_may_not_name_is_refused_by_name() -> None:
    identity = Identity("key:a", frozenset({Scope.INFER}), models=("cats",))
    stage = Stage(authenticator=FakeAuthenticator(identity=identity))
    with pytest.raises(PermissionDenied, match="'digits'"):
        await stage.service.infer(stage.call())
    assert stage.upstream.asked == []


async def test_images_are_counted_by_the_first_dimension_and_refused_past_the_limit() -> None:
    limits = (Limit("key:a", Resource.IMAGES_TODAY, 10),)
    stage = Stage(authenticator=FakeAuthenticator(identity=Identity("key:a", frozenset({Scope.INFER}), ("*",), limits)))
    await stage.service.infer(stage.call(_batch(8)))
    with pytest.raises(LimitExceeded, match="10 images a day"):
        await stage.service.infer(stage.call(_batch(3)))
    await stage.service.infer(stage.call(_batch(2)))
    assert len(stage.upstream.asked) == 2


async def test_a_batch_over_the_bound_is_too_large() -> None:
    stage = Stage(limits=LimitSettings(max_batch=8))
    await stage.service.infer(stage.call(_batch(8)))
    with pytest.raises(TooLarge, match="9 images, the limit is 8"):
        await stage.service.infer(stage.call(_batch(9)))


async def test_bytes_in_flight_are_bounded_and_one_request_always_fits() -> None:
    release = asyncio.Event()

    async def answer(request: bytes) -> bytes:
        await release.wait()
        return await _echo(request)

    stage = Stage(answer, limits=LimitSettings(max_bytes_in_flight=10))
    first = asyncio.create_task(stage.service.infer(stage.call()))
    while not stage.upstream.asked:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="bytes of requests"):
        await stage.service.infer(stage.call())
    release.set()
    await first
    await stage.service.infer(stage.call())


def _batch(images: int) -> bytes:
    request = ModelInferRequest.FromString(_request())
    request.inputs.add(name="images", datatype="UINT8", shape=[images, 32, 32, 3])
    return bytes(request.SerializeToString())


async def test_a_fault_of_ours_is_counted_as_one() -> None:
    async def answer(request: bytes) -> bytes:
        raise RuntimeError("bug")

    stage = Stage(answer)
    with pytest.raises(RuntimeError):
        await stage.service.infer(stage.call())
    assert stage.counted("internal") == 1
    assert not issubclass(RuntimeError, GatewayError)
