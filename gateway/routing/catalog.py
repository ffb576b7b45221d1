"""The models that Triton serves, read again and again, and the version that answers for each."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import structlog
from blake3 import blake3
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)

from contract import model_config
from contract.card import ENCODED_SUFFIX
from contract.tensors import ENCODED, TensorSpec
from gateway.errors import GatewayError, InvalidArgument, NotFound, Unavailable
from gateway.ports import Loads, Route, Upstream
from gateway.routing.counters import InferenceCounters
from gateway.settings import CacheSettings

_CALL_S = 5.0
# The parameter of a model's config that lets tenants share its answers, and its value.
_SHARING, _SHARED = "tidegate_cache", "shared"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batching:
    """How Triton makes batches of a model's requests.

    Attributes:
        max_batch: Images in one; 0 where tensors have no batch dimension.
        gathers: Requests that wait are put together.
        preferred: Sizes at which a batch waits no longer.
        max_delay_s: A smaller batch waits this long for more.
    """

    max_batch: int = 0
    gathers: bool = False
    preferred: frozenset[int] = frozenset()
    max_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Model:
    """A model with at least one ready version.

    Attributes:
        versions: Those that are ready, ascending.
        batches: The first dimension of every tensor is the batch.
        cacheable: Its config has `response_cache { enable: true }`, or the settings name it; and a response depends on its
            request alone.
        takes_timeout: Its queue policy lets a request shorten its wait.
        shared: Tenants share its answers.
        digest: Of its config.
        decoupled: It answers a request as often as it likes.
    """

    name: str
    versions: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: bool
    cacheable: bool
    takes_timeout: bool
    shared: bool = False
    digest: bytes = b""
    batching: Batching = Batching()
    decoupled: bool = False


class ModelCatalog:
    """What the gateway knows of Triton's models.

    What it knows can be `refresh_s` old; a load or unload through this gateway refreshes it at once. A model it does
    not know is sent on as it is, and Triton answers. Where it finds that something was loaded, it says so to `loads`.

    Args:
        counters: What shows loads that did not pass through a gateway.
    """

    def __init__(
        self, upstream: Upstream, counters: InferenceCounters, loads: Loads, cache: CacheSettings, refresh_s: float
    ) -> None:
        self._upstream = upstream
        self._counters = counters
        self._loads = loads
        self._cache = cache
        self._refresh_s = refresh_s
        self._models: dict[str, Model] = {}
        self._ready = False
        self._refreshing = asyncio.Lock()
        self._index: dict[str, set[int]] | None = None
        self._gone = False
        self._read_in = b""

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
            Unavailable: Triton is away, so that nothing is.
        """
        if not self._ready:
            raise Unavailable("no inference server answers; they are being restarted or are not ready")
        if name not in self._models:
            raise NotFound(f"model {name!r} is not served here")
        return self._models[name]

    def check(self, name: str, version: str) -> None:
        """Whether a version of a model is served; empty: any.

        Raises:
            NotFound: It is not.
            Unavailable: Triton is away, so that nothing is.
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
        return Route(
            model,
            version,
            known.cacheable,
            known.takes_timeout,
            known.batches,
            known.shared,
            known.digest,
            decoupled=known.decoupled,
        )

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

    async def loaded(self) -> None:
        """Something was loaded or unloaded through this gateway, or may have been."""
        self._loads.advance()
        await self.refresh()

    async def refresh(self) -> None:
        """Read the index, and the config of each model whose ready versions changed, or of all after a load."""
        async with self._refreshing:
            try:
                models = await self._read_models()
            except GatewayError as error:
                if self._ready:
                    _log.warning("upstream is not ready", reason=error.message)
                self._ready = False
                self._models = {}
                self._gone = self._gone or isinstance(error, Unavailable)
            else:
                if not self._ready or models.keys() != self._models.keys():
                    _log.info("models", ready=sorted(models))
                self._models = models
                self._ready = True
        if self._ready:
            await self._loads.agree()

    async def _read_models(self) -> dict[str, Model]:
        index = await self._read_index()
        # A Triton that was gone may be another. What was loaded when this process began is the other workers' to know.
        if await self._counters.fell() or self._gone or self._index not in (None, index):
            self._loads.advance()
        self._index, self._gone = index, False
        load = self._loads.current
        found = [await self._read(name, tuple(sorted(versions)), load) for name, versions in index.items()]
        self._read_in = load
        return {model.name: model for model in found if model is not None}

    async def _read_index(self) -> dict[str, set[int]]:
        request = RepositoryIndexRequest(ready=True)
        index = RepositoryIndexResponse.FromString(await self._call("RepositoryIndex", request.SerializeToString()))
        versions: dict[str, set[int]] = {}
        for entry in index.models:
            if entry.version:
                versions.setdefault(entry.name, set()).add(int(entry.version))
        return versions

    async def _read(self, name: str, versions: tuple[int, ...], load: bytes) -> Model | None:
        known = self._models.get(name)
        if known is not None and known.versions == versions and load == self._read_in:
            return known
        request = ModelConfigRequest(name=name, version=str(versions[-1]))
        try:
            response = ModelConfigResponse.FromString(await self._call("ModelConfig", request.SerializeToString()))
        except (NotFound, InvalidArgument):
            return None  # Unloaded since the index was read.
        config = response.config
        if _bounds_queue(config):
            _log.warning("a bound on its queue has Triton stall: docs/decisions/0014-no-queue-policy.md", model=name)
        return Model(
            name=name,
            versions=versions,
            inputs=model_config.inputs(config),
            outputs=model_config.outputs(config),
            batches=config.max_batch_size > 0,
            cacheable=self._is_cacheable(config),
            takes_timeout=config.dynamic_batching.default_queue_policy.allow_timeout_override,
            shared=_SHARING in config.parameters and config.parameters[_SHARING].string_value == _SHARED,
            digest=blake3(config.SerializeToString(deterministic=True)).digest(),
            batching=Batching(
                max_batch=config.max_batch_size,
                gathers=config.HasField("dynamic_batching"),
                preferred=frozenset(config.dynamic_batching.preferred_batch_size),
                max_delay_s=config.dynamic_batching.max_queue_delay_microseconds / 1_000_000,
            ),
            decoupled=config.model_transaction_policy.decoupled,
        )

    def _is_cacheable(self, config: ModelConfig) -> bool:
        wanted = config.response_cache.enable or any(fnmatchcase(config.name, glob) for glob in self._cache.models)
        stateful = config.HasField("sequence_batching") or config.model_transaction_policy.decoupled
        return self._cache.on and wanted and not stateful

    async def _call(self, method: str, request: bytes) -> bytes:
        return await self._upstream.call(method, request, asyncio.get_running_loop().time() + _CALL_S)


def _bounds_queue(config: ModelConfig) -> bool:
    batching = config.dynamic_batching
    policy = batching.default_queue_policy
    bounds = (policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override)
    return any(bounds) or batching.priority_levels > 0


def _in_words(spec: TensorSpec, batches: bool) -> str:
    dims = (-1, *spec.dims) if batches else spec.dims
    return f"{spec.name} {spec.data_type} [{','.join(map(str, dims))}]"


def takes_photographs(models: Mapping[str, Model], name: str) -> bool:
    """Whether a model that is served takes image files, or has a twin that does."""
    return name + ENCODED_SUFFIX in models or [spec.name for spec in models[name].inputs] == [ENCODED]
