"""One call's way through the gateway. Read this first."""

import asyncio

from gateway import cache_control, wire
from gateway.auth.models import check_model
from gateway.call import CacheStatus, Caching, Identity, InferenceCall, InferenceReply, Scope
from gateway.errors import DeadlineExceeded, InvalidArgument
from gateway.ports import (
    Admission,
    Answers,
    Authenticator,
    Limiter,
    Metrics,
    Observation,
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
    """Authenticate, admit, read, route, limit, cache, upstream, reply: in this order, for both transports."""

    def __init__(
        self,
        authenticator: Authenticator,
        admission: Admission,
        limiter: Limiter,
        router: Router,
        answers: Answers,
        upstream: Upstream,
        metrics: Metrics,
    ) -> None:
        self._authenticator = authenticator
        self._admission = admission
        self._limiter = limiter
        self._router = router
        self._answers = answers
        self._upstream = upstream
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
            route = self._router.route(header.model, header.version)
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
            answer = await self._ask(route, header, body, call.deadline)
            observation.stage("upstream")
            return InferenceReply(answer, CacheStatus.BYPASS)
        body = wire.without_id(body, header)

        async def ask() -> bytes:
            observation.stage("cache")
            observation.cached(CacheStatus.MISS)
            answer = await self._ask(route, header, body, call.deadline)
            observation.stage("upstream")
            return answer

        observation.cached(CacheStatus.COALESCED)  # Until it is known to ask itself, or to have hit.
        answer, status = await self._answers.find(self._answers.key(route, identity, body), ask, caching)
        if status is not CacheStatus.MISS:
            observation.stage("cache")
            observation.cached(status)
        return InferenceReply(wire.with_id(answer, header.request_id), status)

    async def _ask(self, route: Route, header: InferHeader, body: bytes, deadline: float) -> bytes:
        """Hand the request to Triton with what is left of the time."""
        body = within_deadline(body, header, route, deadline)
        try:
            return await self._upstream.infer(
                route.model, route.version or header.version, body, deadline, _sequence(header)
            )
        except InvalidArgument as error:
            expected = self._router.explain(route.model)
            if expected is None:
                raise
            raise InvalidArgument(f"{error.message}; {expected}") from error


def within_deadline(body: bytes, header: InferHeader, route: Route, deadline: float) -> bytes:
    """The request, told to wait in the model's queue no longer than until the deadline, where the queue can be told."""
    if not route.takes_timeout or _TIMEOUT in header.parameters:
        return body
    left_s = deadline - asyncio.get_running_loop().time()
    return wire.with_timeout(body, max(1, int(left_s * 1_000_000)))


def _sequence(header: InferHeader) -> Sequence | None:
    """The sequence a request belongs to, with its model; None where it belongs to none."""
    parameter = header.parameters.get(_SEQUENCE)
    if parameter is None:
        return None
    start = header.parameters.get(_SEQUENCE_START)
    return Sequence(f"{header.model} {parameter}", start is not None and start.bool_param)
