"""One call's way through the gateway. Read this first."""

import asyncio
from time import perf_counter

from gateway import cache_control, wire
from gateway.auth.models import check_model
from gateway.call import CacheStatus, Caching, Identity, InferenceCall, InferenceReply, Scope
from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument, NotFound
from gateway.figures import Metrics, Observation
from gateway.ports import (
    Admission,
    Answers,
    Authenticator,
    Concurrency,
    Limiter,
    Rollouts,
    Route,
    Router,
    Sequence,
    Upstream,
)
from gateway.wire import InferHeader

_SEQUENCE = "sequence_id"
_SEQUENCE_START = "sequence_start"
_TIMEOUT = "timeout"


class InferenceService:
    """Authenticate, admit, read, route, limit, cache, wait for a turn, upstream, reply: in this order, for both transports."""

    def __init__(
        self,
        authenticator: Authenticator,
        admission: Admission,
        limiter: Limiter,
        router: Router,
        answers: Answers,
        concurrency: Concurrency,
        upstream: Upstream,
        rollouts: Rollouts,
        metrics: Metrics,
    ) -> None:
        self._authenticator = authenticator
        self._admission = admission
        self._limiter = limiter
        self._router = router
        self._answers = answers
        self._concurrency = concurrency
        self._upstream = upstream
        self._rollouts = rollouts
        self._metrics = metrics

    async def infer(self, call: InferenceCall) -> InferenceReply:
        """Answer one call.

        Raises:
            GatewayError: It was not answered.
        """
        with self._metrics.observe(call.headers) as observation:
            try:
                async with asyncio.timeout_at(call.deadline):
                    reply = await self._infer(call, observation)
                    observation.answered(len(reply.body))
                    if call.serialise is not None:
                        await call.serialise(reply.body)
                        observation.stage("serialise")
                    if call.timed is not None:
                        call.timed(observation.elapsed())
                    return reply
            except TimeoutError as error:
                raise DeadlineExceeded("the deadline passed before the answer was there") from error

    async def _infer(self, call: InferenceCall, observation: Observation) -> InferenceReply:
        identity = await self._authenticator.authenticate(call.credential, Scope.INFER)
        observation.called_by(identity)
        observation.stage("auth")
        with self._admission.admit():
            body = await call.read_body()
            observation.stage("read")
            header = wire.read_header(body)
            wire.refuse_regions(body)
            route = self._route(header, identity, call)
            check_model(identity, route.model)
            images = wire.count_images(body, header) if route.batches else 1
            observation.asked(header.request_id, len(body), images)
            with self._admission.hold(len(body), images):
                if route.version:
                    observation.answered_by(route.model, route.version)
                async with self._limiter.admit(identity, images, call.deadline):
                    observation.stage("limit")
                    return await self._answer(route, header, body, call, identity, observation)

    async def _answer(
        self,
        route: Route,
        header: InferHeader,
        body: bytes,
        call: InferenceCall,
        identity: Identity,
        observation: Observation,
    ) -> InferenceReply:
        """From the cache where the model and the caller allow it, else from Triton."""
        caching = Caching.NO_STORE
        if route.cacheable and _SEQUENCE not in header.parameters:
            caching = cache_control.read(call.headers("cache-control"))
        if caching is Caching.NO_STORE:
            answer = await self._ask(route, header, body, call, identity, observation)
            observation.stage("upstream")
            return InferenceReply(answer, CacheStatus.BYPASS)
        body = wire.without_id(body, header)

        async def ask() -> bytes:
            observation.stage("cache")
            observation.cached(CacheStatus.MISS)
            answer = await self._ask(route, header, body, call, identity, observation)
            observation.stage("upstream")
            return answer

        observation.cached(CacheStatus.COALESCED)  # Until it is known to ask itself, or to have hit.
        answer, status = await self._answers.find(self._answers.key(route, identity, body), ask, caching)
        if status is not CacheStatus.MISS:
            observation.stage("cache")
            observation.cached(status)
        return InferenceReply(wire.with_id(answer, header.request_id), status)

    def _route(self, header: InferHeader, identity: Identity, call: InferenceCall) -> Route:
        sequence = sequence_of(header)
        name = None if sequence is None else sequence.name
        return self._router.route(header.model, header.version, identity, call.headers, name)

    async def _ask(
        self,
        route: Route,
        header: InferHeader,
        body: bytes,
        call: InferenceCall,
        identity: Identity,
        observation: Observation,
    ) -> bytes:
        """Ask the version that was chosen; where it is gone meanwhile, the one that is chosen then."""
        try:
            return await self._ask_version(route, header, body, call.deadline, identity)
        except NotFound:
            if route.version in ("", header.version):
                raise
            await self._router.look_again()
            again = self._route(header, identity, call)
            if again.version in ("", route.version):
                raise
        observation.answered_by(again.model, again.version)
        return await self._ask_version(again, header, body, call.deadline, identity)

    async def _ask_version(
        self, route: Route, header: InferHeader, body: bytes, deadline: float, identity: Identity
    ) -> bytes:
        """When it is the call's turn, hand it to Triton with what is left of the time."""
        model = route.model if route.version else None
        version = route.version or header.version
        async with self._concurrency.turn(model, identity.tier, deadline):
            started = perf_counter()
            added = added_fields(header, route, deadline)
            try:
                answer = await self._upstream.infer(route.model, version, body, deadline, sequence_of(header), added)
            except GatewayError as error:
                self._rollouts.failed(route, error, perf_counter() - started)
                # Kept in no variable: it holds this frame, and with it the request.
                raise self._explained(error, route) from error.__cause__
        if route.watch is not None:
            self._rollouts.answered(route, body, answer, perf_counter() - started)
        return answer

    def _explained(self, error: GatewayError, route: Route) -> GatewayError:
        """With what the model takes, for whom gave it something else."""
        expected = self._router.explain(route.model) if isinstance(error, InvalidArgument) else None
        return error if expected is None else InvalidArgument(f"{error.message}; {expected}")


def added_fields(header: InferHeader, route: Route, deadline: float) -> bytes:
    """What is appended to the request to Triton: the version that was chosen, so that no other answers in its name.

    Where the model's queue can be told, the request waits in it no longer than until the deadline.
    """
    version = b"" if route.version in ("", header.version) else wire.version_field(route.version)
    if not route.takes_timeout or _TIMEOUT in header.parameters:
        return version
    left_s = deadline - asyncio.get_running_loop().time()
    return version + wire.timeout_field(max(1, int(left_s * 1_000_000)))


def sequence_of(header: InferHeader) -> Sequence | None:
    """The sequence a request belongs to, with its model; None where it belongs to none."""
    parameter = header.parameters.get(_SEQUENCE)
    if parameter is None:
        return None
    start = header.parameters.get(_SEQUENCE_START)
    return Sequence(f"{header.model} {parameter}", start is not None and start.bool_param)
