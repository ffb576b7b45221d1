"""What the protocol offers beside inference: health, metadata, statistics, the repository.

Each takes and gives the serialized messages of `inference.GRPCInferenceService`, for both transports.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)

from gateway.auth.models import check_model, named_model, only_named
from gateway.call import Scope
from gateway.errors import DeadlineExceeded, Internal, InvalidArgument, NotFound, Unimplemented
from gateway.ports import Audit, Authenticator, Upstream
from gateway.routing.catalog import ModelCatalog

_CHANGE_S = 3_600.0
_HIDDEN_EXTENSIONS = frozenset({"system_shared_memory", "cuda_shared_memory", "trace", "logging"})
_REFUSED = {
    "SystemSharedMemoryStatus": "shared memory is not reachable through this server",
    "SystemSharedMemoryRegister": "shared memory is not reachable through this server",
    "SystemSharedMemoryUnregister": "shared memory is not reachable through this server",
    "CudaSharedMemoryStatus": "shared memory is not reachable through this server",
    "CudaSharedMemoryRegister": "shared memory is not reachable through this server",
    "CudaSharedMemoryUnregister": "shared memory is not reachable through this server",
    "TraceSetting": "trace settings belong to the operator of the server",
    "LogSettings": "log settings belong to the operator of the server",
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A call that Triton answers.

    Attributes:
        scope: What the caller's key must have.
        prepare: Checks the request, and gives the one to send.
        finish: Turns Triton's answer into ours.
        changes_models: The catalog is stale afterwards.
    """

    scope: Scope
    prepare: Callable[[bytes], bytes] = bytes
    finish: Callable[[bytes], bytes] = bytes
    changes_models: bool = False


def _load_without_overrides(request: bytes) -> bytes:
    """Refuse parameters: `config` and `file:` would replace what was verified, and can execute code."""
    try:
        message = RepositoryModelLoadRequest.FromString(request)
    except DecodeError as error:
        raise InvalidArgument("the request is not a RepositoryModelLoadRequest") from error
    if message.parameters:
        names = ", ".join(sorted(message.parameters))
        raise InvalidArgument(f"parameters {names}: a model is loaded as it lies in the repository, without overrides")
    return request


def _offered_extensions(response: bytes) -> bytes:
    message = ServerMetadataResponse.FromString(response)
    offered = [extension for extension in message.extensions if extension not in _HIDDEN_EXTENSIONS]
    del message.extensions[:]
    message.extensions.extend(offered)
    return bytes(message.SerializeToString())


_OPERATIONS = {
    "ServerMetadata": _Operation(Scope.INFER, finish=_offered_extensions),
    "ModelReady": _Operation(Scope.INFER),
    "ModelMetadata": _Operation(Scope.INFER),
    "ModelConfig": _Operation(Scope.READ),
    "ModelStatistics": _Operation(Scope.READ),
    "RepositoryIndex": _Operation(Scope.READ),
    "RepositoryModelLoad": _Operation(Scope.ADMIN, prepare=_load_without_overrides, changes_models=True),
    "RepositoryModelUnload": _Operation(Scope.ADMIN, changes_models=True),
}

METHODS = frozenset({"ServerLive", "ServerReady", *_OPERATIONS, *_REFUSED})


class Readiness:
    """Whether calls should be sent here: Triton answers, and this process is not about to end."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog
        self._draining = False

    @property
    def ready(self) -> bool:
        """Send calls."""
        return self._catalog.ready and not self._draining

    @property
    def draining(self) -> bool:
        """This process is about to end."""
        return self._draining

    def drain(self) -> None:
        """Send no more; those under way go on."""
        self._draining = True


class Operations:
    """The cold path: one entry for every RPC but inference."""

    def __init__(
        self,
        authenticator: Authenticator,
        catalog: ModelCatalog,
        upstream: Upstream,
        readiness: Readiness,
        audit: Audit,
    ) -> None:
        self._authenticator = authenticator
        self._catalog = catalog
        self._upstream = upstream
        self._readiness = readiness
        self._audit = audit
        self._changes: set[asyncio.Task[bytes]] = set()

    async def call(
        self, method: str, credential: str | None, read_body: Callable[[], Awaitable[bytes]], deadline: float
    ) -> bytes:
        """Answer one RPC.

        Args:
            method: One of METHODS.
            read_body: Gives the serialized request, asked for when the caller is known.
            deadline: On the event loop's clock, seconds.

        Raises:
            GatewayError: It was not answered.
        """
        if method == "ServerLive":
            return bytes(ServerLiveResponse(live=True).SerializeToString())
        if method == "ServerReady":
            return bytes(ServerReadyResponse(ready=self._readiness.ready).SerializeToString())
        if method in _REFUSED:
            raise Unimplemented(f"{method}: {_REFUSED[method]}")
        operation = _OPERATIONS[method]
        try:
            async with asyncio.timeout_at(deadline):
                identity = await self._authenticator.authenticate(credential, operation.scope)
                request = operation.prepare(await read_body())
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the request was there") from error
        model = named_model(method, request)
        if model:
            check_model(identity, model)
        if not operation.changes_models:
            answer = await self._upstream.call(method, request, deadline)
            return only_named(identity, method, operation.finish(answer))
        async with self._audit.act(identity.subject, method, model):
            return operation.finish(await self._change(method, model, request, deadline))

    async def _change(self, method: str, model: str, request: bytes, deadline: float) -> bytes:
        """Load or unload. Triton goes on when the caller does not wait, so its end is seen in any case."""

        async def change() -> bytes:
            try:
                return await self._upstream.call(method, request, asyncio.get_running_loop().time() + _CHANGE_S)
            except Internal as error:
                if not await self._in_repository(model, deadline):
                    raise NotFound(f"model {model!r} is not in the repository") from error
                raise
            finally:
                await self._catalog.loaded()

        task = asyncio.create_task(change())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed while Triton was at it; it goes on") from error

    async def _in_repository(self, model: str, deadline: float) -> bool:
        """Triton calls a model that it does not find a failure of its own."""
        answer = await self._upstream.call("RepositoryIndex", RepositoryIndexRequest().SerializeToString(), deadline)
        return any(entry.name == model for entry in RepositoryIndexResponse.FromString(answer).models)
