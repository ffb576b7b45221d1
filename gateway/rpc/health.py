"""`grpc.health.v1`, Check and Watch, for the server as a whole and for the inference service."""

import asyncio

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from gateway.errors import InvalidArgument
from gateway.rpc.call import Call, CallEnded, Method
from gateway.upstream import link

SERVICE = "grpc.health.v1.Health"

_Status = health_pb2.HealthCheckResponse
_NAMES = ("", link.SERVICE)


class Health:
    """What is told to those who ask. One who watches and does not read holds up nobody.

    Attributes:
        methods: By path.
    """

    def __init__(self) -> None:
        self._ready = False
        self._changed = asyncio.Event()
        self.methods: dict[str, Method] = {f"/{SERVICE}/Check": self._check, f"/{SERVICE}/Watch": self._watch}

    def tell(self, ready: bool) -> None:
        """Let those who watch know, where it changed."""
        if ready is not self._ready:
            self._ready = ready
            self._changed.set()
            self._changed = asyncio.Event()

    def _answer(self, name: str) -> bytes:
        known = _Status.SERVING if self._ready else _Status.NOT_SERVING
        return bytes(_Status(status=known if name in _NAMES else _Status.SERVICE_UNKNOWN).SerializeToString())

    async def _check(self, call: Call) -> bytes:
        if (name := await _name(call)) not in _NAMES:
            raise CallEnded(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return self._answer(name)

    async def _watch(self, call: Call) -> None:
        name, said = await _name(call), b""
        while True:
            changed = self._changed
            if (answer := self._answer(name)) != said:
                said = answer
                await call.write(answer)
            await changed.wait()


async def _name(call: Call) -> str:
    """Of the service that is asked for."""
    if (body := await call.read()) is None:
        raise InvalidArgument("the call ended without a message")
    try:
        return health_pb2.HealthCheckRequest.FromString(body).service
    except DecodeError as error:
        raise InvalidArgument("the message cannot be read") from error
