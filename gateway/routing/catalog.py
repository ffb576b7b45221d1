"""The models that Triton serves, read again and again, and the version that answers for each."""

import asyncio
from dataclasses import dataclass

import structlog
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)

from contract import model_config
from contract.tensors import TensorSpec
from gateway.errors import GatewayError, InvalidArgument, NotFound
from gateway.ports import Route, Upstream

_CALL_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """A model with at least one ready version.

    Attributes:
        versions: Those that are ready, ascending.
        batches: The first dimension of every tensor is the batch.
        cacheable: Its config has `response_cache { enable: true }`.
        takes_timeout: Its queue policy lets a request shorten its wait.
    """

    name: str
    versions: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: bool
    cacheable: bool
    takes_timeout: bool


class ModelCatalog:
    """What the gateway knows of Triton's models.

    What it knows can be `refresh_s` old; a load or unload through this gateway refreshes it at once. A model it does
    not know is sent on as it is, and Triton answers.
    """

    def __init__(self, upstream: Upstream, refresh_s: float) -> None:
        self._upstream = upstream
        self._refresh_s = refresh_s
        self._models: dict[str, Model] = {}
        self._ready = False

    @property
    def ready(self) -> bool:
        """Triton answered when it was last asked."""
        return self._ready

    @property
    def models(self) -> dict[str, Model]:
        """By name."""
        return self._models

    def model(self, name: str) -> Model:
        """A model that is served.

        Raises:
            NotFound: It is not.
        """
        if name not in self._models:
            raise NotFound(f"model {name!r} is not served here")
        return self._models[name]

    def check(self, name: str, version: str) -> None:
        """Whether a version of a model is served; empty: any.

        Raises:
            NotFound: It is not.
        """
        known = self.model(name)
        if version and version not in map(str, known.versions):
            raise NotFound(f"model {name!r} has no version {version!r} here")

    def route(self, model: str, version: str) -> Route:
        """The named version where it is ready, else the newest; unknown ones are left to Triton."""
        known = self._models.get(model)
        if known is None:
            return Route(model, "", cacheable=False, takes_timeout=False, batches=False)
        if not version:
            version = str(known.versions[-1])
        elif version not in map(str, known.versions):
            return Route(model, "", cacheable=False, takes_timeout=False, batches=False)
        return Route(model, version, known.cacheable, known.takes_timeout, known.batches)

    def explain(self, model: str) -> str | None:
        """For example: digits takes images UINT8 [-1,32,32,3] and gives scores FP32 [-1,10]."""
        known = self._models.get(model)
        if known is None:
            return None
        takes = ", ".join(_in_words(spec, known.batches) for spec in known.inputs)
        gives = ", ".join(_in_words(spec, known.batches) for spec in known.outputs)
        return f"{model} takes {takes} and gives {gives}"

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._refresh_s)

    async def refresh(self) -> None:
        """Read the index, and the config of each model whose ready versions changed."""
        try:
            index = await self._index()
            found = [await self._read(name, tuple(sorted(versions))) for name, versions in index.items()]
        except GatewayError as error:
            if self._ready:
                _log.warning("upstream is not ready", reason=error.message)
            self._ready = False
            self._models = {}
            return
        models = {model.name: model for model in found if model is not None}
        if not self._ready or models.keys() != self._models.keys():
            _log.info("models", ready=sorted(models))
        self._models = models
        self._ready = True

    async def _index(self) -> dict[str, set[int]]:
        request = RepositoryIndexRequest(ready=True)
        index = RepositoryIndexResponse.FromString(await self._call("RepositoryIndex", request.SerializeToString()))
        versions: dict[str, set[int]] = {}
        for entry in index.models:
            if entry.version:
                versions.setdefault(entry.name, set()).add(int(entry.version))
        return versions

    async def _read(self, name: str, versions: tuple[int, ...]) -> Model | None:
        known = self._models.get(name)
        if known is not None and known.versions == versions:
            return known
        request = ModelConfigRequest(name=name, version=str(versions[-1]))
        try:
            response = ModelConfigResponse.FromString(await self._call("ModelConfig", request.SerializeToString()))
        except (NotFound, InvalidArgument):
            return None  # Unloaded since the index was read.
        config = response.config
        return Model(
            name=name,
            versions=versions,
            inputs=model_config.inputs(config),
            outputs=model_config.outputs(config),
            batches=config.max_batch_size > 0,
            cacheable=config.response_cache.enable,
            takes_timeout=config.dynamic_batching.default_queue_policy.allow_timeout_override,
        )

    async def _call(self, method: str, request: bytes) -> bytes:
        return await self._upstream.call(method, request, asyncio.get_running_loop().time() + _CALL_S)


def _in_words(spec: TensorSpec, batches: bool) -> str:
    dims = (-1, *spec.dims) if batches else spec.dims
    return f"{spec.name} {spec.data_type} [{','.join(map(str, dims))}]"
