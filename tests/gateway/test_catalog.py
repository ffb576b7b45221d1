import pytest
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)

from contract.card import Card, Preprocessing
from contract.formats import Format
from contract.model_config import model_config
from gateway.errors import NotFound, Unavailable
from gateway.routing.catalog import ModelCatalog
from tests.gateway.fakes import FakeUpstream

_CARD = Card(
    name="digits", labels=("zero", "one"), preprocessing=Preprocessing(height=4, width=4), cache_responses=True
)


class Repository:
    """Models by name with their ready versions; a version in `gone` has no config any more."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = {"digits": [1, 3]}
        self.gone: set[str] = set()
        self.away = False

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
        return bytes(ModelConfigResponse(config=model_config(_CARD, Format.ONNX)).SerializeToString())


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def upstream(repository: Repository) -> FakeUpstream:
    return FakeUpstream(RepositoryIndex=repository.index, ModelConfig=repository.config)


@pytest.fixture
async def catalog(upstream: FakeUpstream) -> ModelCatalog:
    catalog = ModelCatalog(upstream, refresh_s=1)
    await catalog.refresh()
    return catalog


async def test_the_newest_ready_version_answers(catalog: ModelCatalog) -> None:
    route = catalog.route("digits", "")
    assert (route.version, route.cacheable, route.takes_timeout) == ("3", True, True)
    assert catalog.route("digits", "1").version == "1"


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
    repository.away = False
    await catalog.refresh()
    assert catalog.ready and list(catalog.models) == ["digits"]
