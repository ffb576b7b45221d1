"""gRPC's calls of inference: messages in and out as bytes, one method for the hot path and one for the rest."""

import asyncio
import math

from gateway.call import CacheStatus, InferenceCall, StreamCall
from gateway.credentials import bearer
from gateway.errors import GatewayError, InvalidArgument, LimitExceeded
from gateway.operations import METHODS, Operations
from gateway.rpc.call import Call, CallEnded, Method
from gateway.rpc.status import STATUS
from gateway.service import InferenceService
from gateway.settings import LimitSettings
from gateway.stream import StreamService
from gateway.upstream.link import SERVICE

CACHE_HEADER = "x-tidegate-cache"
# gRPC clients that retry wait this long.
PUSHBACK = "grpc-retry-pushback-ms"
_CACHE_TRAILERS = {status: ((CACHE_HEADER, status.value),) for status in CacheStatus}


class InferenceHandler:
    """The methods of `inference.GRPCInferenceService`.

    A handler has the call before its body, and the body of an unknown caller is never read.

    Attributes:
        methods: By path.
    """

    def __init__(
        self, service: InferenceService, streams: StreamService, operations: Operations, limits: LimitSettings
    ) -> None:
        self._service = service
        self._streams = streams
        self._operations = operations
        self._limits = limits
        methods = {method: self._operation(method) for method in METHODS}
        methods |= {"ModelInfer": self._infer, "ModelStreamInfer": self._stream}
        self.methods = {f"/{SERVICE}/{name}": method for name, method in methods.items()}

    async def _infer(self, call: Call) -> bytes:
        headers = call.head.fields.get
        asked = InferenceCall(
            credential=bearer(headers("authorization")),
            deadline=self._call_deadline(call),
            read_body=lambda: _read(call),
            headers=headers,
        )
        try:
            reply = await self._service.infer(asked)
        except LimitExceeded as error:
            raise _pushed_back(error) from error
        call.trailing = _CACHE_TRAILERS[reply.cache]
        return reply.body

    async def _stream(self, call: Call) -> None:
        async def send(body: bytes, _: GatewayError | None) -> None:
            await call.write(body)

        headers = call.head.fields.get
        deadline = self._deadline(call, self._limits.max_stream_s, self._limits.max_stream_s)
        try:
            await self._streams.infer(StreamCall(bearer(headers("authorization")), deadline, call.read, send, headers))
        except LimitExceeded as error:
            raise _pushed_back(error) from error

    def _operation(self, method: str) -> Method:
        async def handle(call: Call) -> bytes:
            try:
                return await self._operations.call(
                    method,
                    bearer(call.head.fields.get("authorization")),
                    lambda: _read(call),
                    self._call_deadline(call),
                )
            except LimitExceeded as error:
                raise _pushed_back(error) from error

        return handle

    def _deadline(self, call: Call, default_s: float, max_s: float) -> float:
        """The client's, within its bounds, on the event loop's clock."""
        left_s = call.head.timeout_s
        return asyncio.get_running_loop().time() + min(default_s if left_s is None else left_s, max_s)

    def _call_deadline(self, call: Call) -> float:
        return self._deadline(call, self._limits.default_deadline_s, self._limits.max_deadline_s)


async def _read(call: Call) -> bytes:
    if (body := await call.read()) is None:
        raise InvalidArgument("the call ended without a message")
    return body


def _pushed_back(error: LimitExceeded) -> CallEnded:
    wait_ms = max(1, math.ceil(error.retry_after_s * 1_000))
    return CallEnded(STATUS[error.kind], error.message, ((PUSHBACK, str(wait_ms)),))
