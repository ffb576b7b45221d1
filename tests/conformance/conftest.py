"""One Triton with all its endpoints, and the gateway before it: every item is asked of both."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import serving.triton
from serving.arguments import triton_arguments
from serving.ports import ReservedPort
from serving.settings import SupervisionSettings, TritonSettings
from serving.triton import EmbeddedTriton
from tests.conformance import models
from tests.worker import worker

MAX_BODY_BYTES = 8_000_000
MAX_STREAM_IN_FLIGHT = 4
STALL_S = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one of the two is."""

    name: str
    grpc: str
    http: str


@dataclass(frozen=True, slots=True)
class Gateway(Endpoint):
    """The gateway, and what only it has."""

    metrics: str
    pid: int


@pytest.fixture(scope="package")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's models."""
    made = tmp_path_factory.mktemp("repository")
    models.write(made)
    return made


@pytest.fixture(scope="package")
async def bare(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Endpoint]:
    """The embedded Triton, with the HTTP that it has off in service."""
    settings = TritonSettings(exit_timeout_s=5, supervision=SupervisionSettings(exit_timeout_s=10))
    with ReservedPort() as http, pytest.MonkeyPatch.context() as patch:

        def with_http(*arguments: object, **options: object) -> tuple[str, ...]:
            made = triton_arguments(*arguments, **options)  # type: ignore[arg-type]  # Passed on as they come.
            http_options = ("--allow-http=true", "--http-address=127.0.0.1", f"--http-port={http.number}")
            return (*(option for option in made if not option.startswith("--allow-http")), *http_options)

        patch.setattr(serving.triton, "triton_arguments", with_http)
        state_dir = tmp_path_factory.mktemp("state")
        async with EmbeddedTriton(repository, state_dir=state_dir, settings=settings, environment=os.environ) as triton:
            assert await triton.unavailable_models() == {}
            yield Endpoint("triton", triton.grpc_address, f"127.0.0.1:{http.number}")


@pytest.fixture(scope="package")
def gateway(bare: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway worker before it, which lets every caller in."""
    settings = {
        "UPSTREAM__ADDRESS": bare.grpc,
        "LIMITS__MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "LIMITS__STALL_S": str(STALL_S),
        "LIMITS__MAX_STREAM_IN_FLIGHT": str(MAX_STREAM_IN_FLIGHT),
    }
    with worker(tmp_path_factory.mktemp("gateway"), **settings) as started:
        yield Gateway("gateway", started.grpc, started.http, started.metrics, started.pid)


@pytest.fixture(params=["triton", "gateway"])
def endpoint(request: pytest.FixtureRequest, bare: Endpoint, gateway: Gateway) -> Endpoint:
    """Each of the two in turn."""
    return bare if request.param == "triton" else gateway
