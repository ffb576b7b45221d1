"""Servers that speak enough of Triton's gRPC to stand in for replicas; each misbehaves as told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, RepositoryIndexResponse

from gateway.settings import UpstreamSettings
from gateway.upstream.link import SERVICE
from gateway.upstream.triton import TritonUpstream

_Context = aio.ServicerContext[bytes, bytes]
Infer = Callable[[bytes, _Context], Awaitable[bytes]]


class StandIn(grpc.GenericRpcHandler):
    """Answers an inference with its own name as the id.

    Attributes:
        serves: Name and version of what it says is ready.
        infer: Answers an inference in place of the usual answer.
        stream: What it does with the first request of a stream.
        silent: It leaves questions about its models unanswered.
        asked: The methods it was asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.serves = {("digits", "1")}
        self.infer: Infer | None = None
        self.stream: Infer = hangs
        self.silent = False
        self.asked: list[str] = []
        self.address = ""
        self._server: aio.Server | None = None

    @property
    def inferences(self) -> int:
        """How many it was asked for."""
        return self.asked.count("ModelInfer")

    async def start(self) -> None:
        """Listen; again where it listened before."""
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Every method of Triton's service."""
        method = handler_call_details.method.rpartition("/")[2]

        async def answer(request: bytes, context: _Context) -> bytes:
            self.asked.append(method)
            if method == "RepositoryIndex":
                return await self._index()
            if method == "ModelInfer":
                return await (self.infer or self.answer)(request, context)
            if method == "ModelStreamInfer":
                return await self.stream(request, context)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    async def answer(self, request: bytes, context: _Context) -> bytes:
        """As a Triton that is well."""
        asked = ModelInferRequest.FromString(request)
        if (asked.model_name, asked.model_version or "1") not in self.serves:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{asked.model_name}' is not found"
            )
        response = ModelInferResponse(model_name=asked.model_name, model_version=asked.model_version, id=self.name)
        return bytes(response.SerializeToString())

    async def _index(self) -> bytes:
        if self.silent:
            await asyncio.Event().wait()
        index = RepositoryIndexResponse()
        for name, version in sorted(self.serves):
            index.models.add(name=name, version=version, state="READY")
        return bytes(index.SerializeToString())


def fails(code: grpc.StatusCode, details: str) -> Infer:
    """Refuses every inference."""

    async def infer(request: bytes, context: _Context) -> bytes:
        await context.abort(code, details)
        raise AssertionError

    return infer


async def hangs(request: bytes, context: _Context) -> bytes:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


class Figures:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.retries: list[tuple[str, str]] = []
        self.hedges: list[str] = []
        self.ejections: list[int] = []
        self.up: dict[int, bool] = {}
        self.limits: dict[str, float] = {}
        self.moves: list[str] = []
        self.most_waiting: dict[str, int] = {}
        self.now_waiting: dict[str, int] = {}
        self.weights: dict[tuple[str, str], float] = {}
        self.disagreements: list[str] = []
        self.rollbacks: list[tuple[str, str]] = []

    def retried(self, model: str, outcome: str) -> None:
        self.retries.append((model, outcome))

    def hedged(self, model: str) -> None:
        self.hedges.append(model)

    def ejected(self, replica: int) -> None:
        self.ejections.append(replica)

    def replica_up(self, replica: int, up: bool) -> None:
        self.up[replica] = up

    def concurrency_limit(self, model: str, limit: float, moved: str | None = None) -> None:
        self.limits[model] = limit
        if moved is not None:
            self.moves.append(moved)

    def waiting(self, model: str, calls: int) -> None:
        self.now_waiting[model] = calls
        self.most_waiting[model] = max(calls, self.most_waiting.get(model, 0))

    def traffic_weight(self, model: str, version: str, weight: float) -> None:
        self.weights[model, version] = weight

    def disagreed(self, model: str) -> None:
        self.disagreements.append(model)

    def rolled_back(self, model: str, reason: str) -> None:
        self.rollbacks.append((model, reason))


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[StandIn]]:
    """So many, named a, b, c…"""
    async with AsyncExitStack() as stack:
        started = [StandIn(name) for name in "abcdefgh"[:count]]
        for each in started:
            await each.start()
            stack.push_async_callback(each.stop)
        yield started


@asynccontextmanager
async def upstream(tritons: list[StandIn], figures: Figures, **settings: Any) -> AsyncIterator[TritonUpstream]:
    """What calls them, after its first round of checks."""
    address = ",".join(triton.address for triton in tritons)
    made = TritonUpstream(UpstreamSettings(address=address, **settings), 64 * 1024 * 1024, figures)
    try:
        await check(made)
        yield made
    finally:
        await made.close()


async def check(upstream: TritonUpstream) -> bytes:
    """One round of checks; the index that came of it."""
    return await upstream.call("RepositoryIndex", b"\x12\x00\x10\x01"[2:], asyncio.get_running_loop().time() + 5)
