"""A stream of calls: its caller is known once, at the door; each request in it is then a call of its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType

from tritonclient.grpc.service_pb2 import ModelInferResponse, ModelStreamInferResponse

from gateway import wire
from gateway.auth.models import check_model
from gateway.call import Identity, Scope, StreamCall
from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument, Unavailable
from gateway.figures import Metrics, Observation
from gateway.ports import (
    Admission,
    Authenticator,
    Concurrency,
    Limiter,
    Places,
    Rollouts,
    Route,
    Router,
    StreamAnswer,
    StreamUpstream,
    UpstreamStream,
)
from gateway.service import added_fields, sequence_of

# A caller that lets an answer wait for longer is not waited for by others.
_SLOW_CALLER_S = 0.1


class StreamService:
    """Authenticate, admit, and relay in both directions until either side is done.

    Args:
        streams: Bounds the streams that are open.
        admission: Bounds the requests in them, with those of the calls beside them.
        max_in_flight: Requests of one stream that are not fully answered; the next is not read before one is.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        streams: Places,
        admission: Admission,
        limiter: Limiter,
        router: Router,
        concurrency: Concurrency,
        upstream: StreamUpstream,
        rollouts: Rollouts,
        metrics: Metrics,
        max_in_flight: int,
    ) -> None:
        self._authenticator = authenticator
        self._streams = streams
        self._admission = admission
        self._limiter = limiter
        self._router = router
        self._concurrency = concurrency
        self._upstream = upstream
        self._rollouts = rollouts
        self._metrics = metrics
        self._max_in_flight = max_in_flight

    async def infer(self, call: StreamCall) -> None:
        """Answer a stream; what is wrong with one request is told within it.

        Raises:
            GatewayError: The stream as a whole ends.
        """
        with self._metrics.observe_stream():
            try:
                async with asyncio.timeout_at(call.deadline):
                    identity = await self._authenticator.authenticate(call.credential, Scope.INFER)
                    with self._streams.admit():
                        async with self._upstream.stream(call.deadline) as upstream:
                            await self._relay(call, identity, upstream)
            except TimeoutError as error:
                raise DeadlineExceeded("the stream's deadline passed") from error

    async def _relay(self, call: StreamCall, identity: Identity, upstream: UpstreamStream) -> None:
        stages = _Stages(self._admission, self._limiter, self._router, self._concurrency, self._rollouts, self._metrics)
        requests = _Requests(stages, identity, call, self._max_in_flight)
        sending = asyncio.Lock()

        async def send(response: bytes, error: GatewayError | None) -> None:
            async with sending:
                with requests.taken():
                    await call.send(response, error)

        async def ask() -> None:
            while (body := await requests.next(call)) is not None:
                try:
                    prepared = await requests.begin(body)
                except GatewayError as error:
                    await send(_refusal(error, body), error)
                else:
                    await upstream.send(*prepared)
            await upstream.done()

        async def answer() -> None:
            async for response in upstream.answers():
                shown = requests.answered(response)
                if response.final:
                    await requests.end(response)
                if shown is not None:
                    await send(*shown)

        async with requests:
            asking, answering = asyncio.create_task(ask()), asyncio.create_task(answer())
            answering.add_done_callback(lambda _: asking.cancel())
            try:
                await asyncio.wait((answering, asking), return_when=asyncio.FIRST_EXCEPTION)
                for task in (answering, asking):
                    if task.done() and not task.cancelled():
                        task.result()
            finally:
                answering.cancel()
                asking.cancel()
                await asyncio.gather(answering, asking, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Stages:
    """What each request of a stream goes through."""

    admission: Admission
    limiter: Limiter
    router: Router
    concurrency: Concurrency
    rollouts: Rollouts
    metrics: Metrics


@dataclass(slots=True)
class _Request:
    """One that Triton was asked.

    Attributes:
        version: As the caller named it.
        wants_final: The caller asked for the empty response that says there are no more.
        observation: Its figures.
        held: What is given back when it is answered: its places, and its measurement.
        give_turn_back: Its place among the model's calls, before that.
        error: What it was told went wrong.
    """

    route: Route
    version: str
    wants_final: bool
    observation: Observation
    held: AsyncExitStack
    give_turn_back: Callable[[], None]
    error: GatewayError | None = None


class _Requests:
    """The requests of one stream that are not fully answered, by their ids: equal ids are answered in order."""

    def __init__(self, stages: _Stages, identity: Identity, call: StreamCall, max_in_flight: int) -> None:
        self._stages = stages
        self._identity = identity
        self._deadline = call.deadline
        self._headers = call.headers
        self._room = asyncio.Semaphore(max_in_flight)
        self._takes_answers = asyncio.Event()
        self._takes_answers.set()
        self._open: dict[str, deque[_Request]] = {}

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What is still open ends as the stream does; where that ended well, it was not answered all the same."""
        if error is None:
            kind, error = Unavailable, Unavailable("the stream ended before the request was answered")
        for requests in self._open.values():
            for request in requests:
                await request.held.__aexit__(kind, error, traceback)

    async def next(self, call: StreamCall) -> bytes | None:
        """Wait for room, then for the caller."""
        await self._room.acquire()
        await self._takes_answers.wait()
        return await call.receive()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While the caller takes an answer. Where that takes it long, its requests have no turns, and it gets no more of them:
        those are for the time that the model needs, and others wait for them."""
        slow = asyncio.get_running_loop().call_later(_SLOW_CALLER_S, self._give_turns_back)
        try:
            yield
        finally:
            slow.cancel()
            self._takes_answers.set()

    async def begin(self, body: bytes) -> tuple[bytes, bool]:
        """Admit a request, and give the one to send and whether its model is decoupled: the stages of a call, less the
        caller's identity and the cache.

        Raises:
            GatewayError: It is not admitted.
        """
        try:
            async with AsyncExitStack() as held:
                observation = held.enter_context(self._stages.metrics.observe())
                observation.called_by(self._identity)
                header = wire.read_header(body)
                wire.refuse_regions(body)
                held.enter_context(self._stages.admission.admit())
                sequence = sequence_of(header)
                name = None if sequence is None else sequence.name
                route = self._stages.router.route(header.model, header.version, self._identity, self._headers, name)
                check_model(self._identity, route.model)
                images = wire.count_images(body, header) if route.batches else 1
                observation.asked(header.request_id, len(body), images)
                held.enter_context(self._stages.admission.hold(len(body), images))
                if route.version:
                    observation.answered_by(route.model, route.version)
                await held.enter_async_context(self._stages.limiter.admit(self._identity, images, self._deadline))
                give_turn_back = await self._turn(route, held)
                marked = replace(route, version=wire.REPEATED + route.version) if route.version else route
                added = added_fields(header, marked, self._deadline) + wire.EMPTY_FINAL_RESPONSE_FIELD
                asked = header.parameters.get(wire.EMPTY_FINAL_RESPONSE)
                wants_final = asked is not None and asked.bool_param
                request = _Request(route, header.version, wants_final, observation, held.pop_all(), give_turn_back)
        except GatewayError:
            self._room.release()
            raise
        self._open.setdefault(header.request_id, deque()).append(request)
        return body + added, route.decoupled

    def answered(self, response: StreamAnswer) -> tuple[bytes, GatewayError | None] | None:
        """What the caller is to see of a response, and the error it tells; None where that is nothing."""
        request = self._oldest(response)
        if request is not None:
            request.observation.answered(len(response.body))
        if response.error is not None:
            error = self._explained(response.error, request)
            if request is not None:
                request.error = error
            message = _shown(response, request)
            message.error_message = error.message
            return bytes(message.SerializeToString()), error
        if not response.empty:
            return response.body, None
        if request is None or not request.wants_final:
            return None
        return bytes(_shown(response, request).SerializeToString()), None

    async def end(self, response: StreamAnswer) -> None:
        """The request that this response answers has no more."""
        request = self._oldest(response)
        if request is None:
            return
        requests = self._open[response.request_id]
        requests.popleft()
        if not requests:
            del self._open[response.request_id]
        self._room.release()
        error = request.error
        self._stages.rollouts.streamed(request.route, error)
        await request.held.__aexit__(None if error is None else type(error), error, None)

    async def _turn(self, route: Route, held: AsyncExitStack) -> Callable[[], None]:
        """Wait until it is the request's turn; what gives that back before the request is answered.

        One of a decoupled model waits for none: how long it takes says how much there is to say, and not how busy the model
        is.
        """
        if route.decoupled:
            return _nothing
        model = route.model if route.version else None
        turn = self._stages.concurrency.turn(model, self._identity.tier, self._deadline)
        give_back = await held.enter_async_context(turn)
        if not self._takes_answers.is_set():
            give_back()
        return give_back

    def _give_turns_back(self) -> None:
        self._takes_answers.clear()
        for requests in self._open.values():
            for request in requests:
                request.give_turn_back()

    def _oldest(self, response: StreamAnswer) -> _Request | None:
        requests = self._open.get(response.request_id)
        return requests[0] if requests else None

    def _explained(self, error: GatewayError, request: _Request | None) -> GatewayError:
        expected = self._stages.router.explain(request.route.model) if request is not None else None
        if expected is None or not isinstance(error, InvalidArgument):
            return error
        return InvalidArgument(f"{error.message}; {expected}")


def _nothing() -> None: ...


def _shown(response: StreamAnswer, request: _Request | None) -> ModelStreamInferResponse:
    """A response that is not a model's: where Triton repeats the version that it was asked for, the caller's own."""
    message = ModelStreamInferResponse.FromString(response.body)
    if message.infer_response.model_version.startswith(wire.REPEATED):
        message.infer_response.model_version = request.version if request is not None else ""
    return message


def _refusal(error: GatewayError, body: bytes) -> bytes:
    """An error as Triton tells one within a stream: with the id of the request, where it can be read."""
    try:
        request_id = wire.read_header(body).request_id
    except InvalidArgument:
        request_id = ""
    response = ModelStreamInferResponse(error_message=error.message, infer_response=ModelInferResponse(id=request_id))
    return bytes(response.SerializeToString())
