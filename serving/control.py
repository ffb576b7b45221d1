"""The few calls that the supervisor itself makes to Triton."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

_NO_ANSWER_S = 0.1
_CALL_TIMEOUT_S = 10.0
_CHANNEL_OPTIONS = (
    # A server that starts is found soon after it listens.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)


class TritonControl:
    """A client of one Triton's health and repository calls."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def wait_until_started(self, timeout_s: float) -> bool:
        """Wait until Triton answers, which it does when it has loaded its models.

        Returns:
            Whether it is ready. One that is not will not become so: it could not read its repository.

        Raises:
            TimeoutError: It did not answer within `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    reply = await self._stub.ServerReady(service_pb2.ServerReadyRequest(), wait_for_ready=True)
                    return bool(reply.ready)
                except grpc.RpcError:
                    await asyncio.sleep(_NO_ANSWER_S)

    async def unavailable_models(self) -> dict[str, str]:
        """Why models are not served, by `name/version`, or by name; without those that were unloaded.

        Raises:
            grpc.RpcError: Triton does not answer.
        """
        reply = await self._index()
        return {
            f"{model.name}/{model.version}" if model.version else model.name: _first_part(model.reason)
            for model in reply.models
            if model.state != "READY" and model.reason != "unloaded"
        }

    async def reload_first_known(self, names: Sequence[str]) -> str | None:
        """Unload and load the first of `names` that is a model here; None where none is.

        Raises:
            grpc.RpcError: Triton does not answer, or the model does not load.
        """
        known = {model.name for model in (await self._index()).models}
        for name in names:
            if name in known:
                # To load alone does nothing: the files have not changed.
                await self._stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name=name))
                await self._stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=name))
                return name
        return None

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _index(self) -> Any:
        return await self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=_CALL_TIMEOUT_S)


def _first_part(reason: str) -> str:
    # What follows is where in the stub's Python it was raised.
    return reason.partition("\n\nAt:")[0] or "not loaded"
