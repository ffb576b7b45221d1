import pytest
from structlog.testing import capture_logs
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelQueuePolicy
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelStatisticsResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)

from contract.card import Card, Preprocessing
from contract.formats import Format
from contract.model_config import model_config
from gateway.errors import NotFound, Unavailable
from gateway.routing.catalog import ModelCatalog
from gateway.routing.counters import InferenceCounters
from gateway.settings import CacheSettings
from tests.gateway.fakes import FakeLoads, FakeUpstream

_CARD = Card(
    name="digits", labels=("zero", "one"), preprocessing=Preprocessing(height=4, width=4), cache_responses=True
)


class Repository:
    """Models by name with their ready versions, and what was counted of each; one in `gone` has no config any more."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = {"digits": [1, 3]}
        self.gone: set[str] = set()
        self.away = False
        self.counted = 0
        self.made = model_config(_CARD, Format.ONNX)

    async def index(self, request: bytes) -> bytes:
        if self.away:
            raise Unavailable("away")
        assert RepositoryIndexRequest.FromString(request).ready
        response = RepositoryIndexResponse()
        for name, versions in self.versions.items():
            for version in versions:
                response.models.add(name=name, version=str(version), state="READY")
        return bytes(response.SerializeToString())

    async def config(self, request: bytes) -> bytes:
        name = ModelConfigRequest.FromString(request).name
        if name in self.gone:
            raise NotFound("gone")
        return bytes(ModelConfigResponse(config=self.made).SerializeToString())

    async def statistics(self, request: bytes) -> bytes:
        response = ModelStatisticsResponse()
        for name, versions in self.versions.items():
            for version in versions:
                response.model_stats.add(name=name, version=str(version), inference_count=self.counted)
        return bytes(response.SerializeToString())


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def upstream(repository: Repository) -> FakeUpstream:
    return FakeUpstream(
        RepositoryIndex=repository.index, ModelConfig=repository.config, ModelStatistics=repository.statistics
    )


@pytest.fixture
def loads() -> FakeLoads:
    return FakeLoads()


def _catalog(upstream: FakeUpstream, loads: FakeLoads, cache: CacheSettings | None = None) -> ModelCatalog:
    return ModelCatalog(upstream, InferenceCounters(lambda: (upstream,)), loads, cache or CacheSettings(), refresh_s=1)


@pytest.fixture
async def catalog(upstream: FakeUpstream, loads: FakeLoads) -> ModelCatalog:
    catalog = _catalog(upstream, loads)
    await catalog.refresh()
    return catalog


async def test_the_newest_ready_version_answers(catalog: ModelCatalog) -> None:
    route = catalog.route("digits", "")
    assert (route.version, route.cacheable, route.takes_timeout) == ("3", True, False)
    assert catalog.route("digits", "1").version == "1"


async def test_a_queue_that_can_be_told_a_timeout_is_known(
    repository: Repository, upstream: FakeUpstream, loads: FakeLoads
) -> None:
    repository.made.dynamic_batching.default_queue_policy.allow_timeout_override = True
    catalog = _catalog(upstream, loads)
    await catalog.refresh()
    assert catalog.route("digits", "").takes_timeout


@pytest.mark.parametrize(
    ("batching", "warnings"),
    [
        (ModelDynamicBatching(preferred_batch_size=[8]), 0),
        (ModelDynamicBatching(default_queue_policy=ModelQueuePolicy(max_queue_size=1_024)), 1),
        (ModelDynamicBatching(default_queue_policy=ModelQueuePolicy(default_timeout_microseconds=1)), 1),
        (ModelDynamicBatching(default_queue_policy=ModelQueuePolicy(allow_timeout_override=True)), 1),
        (ModelDynamicBatching(priority_levels=2), 1),
    ],
)
async def test_a_bounded_queue_is_warned_of_once_a_load(
    repository: Repository,
    upstream: FakeUpstream,
    loads: FakeLoads,
    batching: ModelDynamicBatching,
    warnings: int,
) -> None:
    repository.made.dynamic_batching.CopyFrom(batching)
    catalog = _catalog(upstream, loads)
    with capture_logs() as lines:
        await catalog.refresh()
        await catalog.refresh()
    assert [line["model"] for line in lines if line["log_level"] == "warning"] == ["digits"] * warnings


@pytest.mark.parametrize(("model", "version"), [("absent", ""), ("digits", "2"), ("digits", "x"), ("digits", "-1")])
async def test_what_is_not_known_is_left_to_triton(catalog: ModelCatalog, model: str, version: str) -> None:
    route = catalog.route(model, version)
    assert (route.version, route.cacheable) == ("", False)


async def test_a_model_is_explained(catalog: ModelCatalog) -> None:
    assert catalog.explain("digits") == "digits takes images UINT8 [-1,4,4,3] and gives scores FP32 [-1,2]"
    assert catalog.explain("absent") is None
    with pytest.raises(NotFound, match="'absent'"):
        catalog.model("absent")


async def test_configs_are_read_when_versions_change_and_not_before(
    catalog: ModelCatalog, repository: Repository, upstream: FakeUpstream
) -> None:
    def configs() -> int:
        return [method for method, _ in upstream.asked].count("ModelConfig")

    await catalog.refresh()
    assert configs() == 1
    repository.versions["digits"].append(4)
    await catalog.refresh()
    assert configs() == 2
    assert catalog.route("digits", "").version == "4"


async def test_a_model_that_goes_between_index_and_config_harms_no_other(
    catalog: ModelCatalog, repository: Repository
) -> None:
    repository.versions["going"] = [1]
    repository.gone.add("going")
    await catalog.refresh()
    assert catalog.ready
    assert list(catalog.models) == ["digits"]


async def test_without_triton_nothing_is_ready_until_it_is_back(catalog: ModelCatalog, repository: Repository) -> None:
    repository.away = True
    await catalog.refresh()
    assert not catalog.ready and not catalog.models
    with pytest.raises(Unavailable):  # Not NotFound, which callers would take for an answer.
        catalog.model("digits")
    repository.away = False
    await catalog.refresh()
    assert catalog.ready and list(catalog.models) == ["digits"]


async def test_what_may_have_been_loaded_is_told(
    catalog: ModelCatalog, repository: Repository, loads: FakeLoads
) -> None:
    repository.counted = 5
    await catalog.refresh()
    assert loads.number == 0, "neither the first look nor calls are a load"
    repository.counted = 4
    await catalog.refresh()
    assert loads.number == 1, "a count that falls"
    repository.versions["digits"].append(4)
    await catalog.refresh()
    assert loads.number == 2, "another index"
    repository.away = True
    await catalog.refresh()
    repository.away = False
    await catalog.refresh()
    assert loads.number == 3, "a Triton that was gone"
    await catalog.loaded()
    assert loads.number == 4, "a load through this gateway"
    assert loads.agreements == 6, "at each look that Triton answered"


async def test_a_load_has_the_configs_read_again(
    catalog: ModelCatalog, repository: Repository, loads: FakeLoads
) -> None:
    before = catalog.route("digits", "")
    repository.made.max_batch_size += 1
    loads.advance()  # By another worker.
    await catalog.refresh()
    assert catalog.route("digits", "").digest != before.digest


async def _route_of(repository: Repository, made: ModelConfig, cache: CacheSettings) -> tuple[bool, bool]:
    repository.made = made
    upstream = FakeUpstream(
        RepositoryIndex=repository.index, ModelConfig=repository.config, ModelStatistics=repository.statistics
    )
    catalog = _catalog(upstream, FakeLoads(), cache)
    await catalog.refresh()
    route = catalog.route("digits", "")
    return route.cacheable, route.shared


async def test_a_model_or_the_settings_opt_in_and_tenants_share_where_the_model_says_so(repository: Repository) -> None:
    silent, asking, sharing = (ModelConfig(name="digits") for _ in range(3))
    asking.response_cache.enable = sharing.response_cache.enable = True
    sharing.parameters["tidegate_cache"].string_value = "shared"
    unset, named, off = CacheSettings(), CacheSettings(models=("dig*",)), CacheSettings(max_bytes=0)
    assert await _route_of(repository, silent, unset) == (False, False)
    assert await _route_of(repository, silent, named) == (True, False)
    assert await _route_of(repository, asking, unset) == (True, False)
    assert await _route_of(repository, sharing, unset) == (True, True)
    assert await _route_of(repository, asking, off) == (False, False)


async def test_a_response_that_depends_on_more_than_its_request_is_never_kept(repository: Repository) -> None:
    sequence, decoupled = (ModelConfig(name="digits") for _ in range(2))
    sequence.response_cache.enable = decoupled.response_cache.enable = True
    sequence.sequence_batching.max_sequence_idle_microseconds = 1
    decoupled.model_transaction_policy.decoupled = True
    for made in (sequence, decoupled):
        assert await _route_of(repository, made, CacheSettings(models=("*",))) == (False, False)
