"""One Triton for the tests that only ask it, and a way to start others."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
import tritonclient.grpc.aio as triton_client

from serving.settings import SupervisionSettings, TritonSettings
from serving.triton import EmbeddedTriton
from tests.serving import models
from tests.serving.events import Events

SETTINGS = TritonSettings(
    startup_timeout_s=120, exit_timeout_s=5, supervision=SupervisionSettings(exit_timeout_s=10, restart_min_s=0.05)
)


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def embed(state_dir: Path) -> Callable[..., EmbeddedTriton]:
    def make(repository: Path | str, settings: TritonSettings = SETTINGS) -> EmbeddedTriton:
        return EmbeddedTriton(repository, state_dir=state_dir, settings=settings, environment=os.environ)

    return make


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    models.write_channels(root)
    models.write_channels(root, models.ASKING, engine=False)
    models.write_onnx(root, "doubling", 'backend: "onnxruntime"', models.doubling())
    models.write_onnx(root, "single", 'backend: "onnxruntime"', models.doubling(batch=1))
    models.write_onnx(root, "echo", 'backend: "onnxruntime"', models.echo())
    models.write_onnx(root, "lookup", _lookup_config(), models.lookup())
    models.write_openvino(root, "doubling_ir", 'backend: "openvino"', models.doubling())
    models.write_torchscript(root, "sums", _sums_config())
    models.write_torchscript(root, "untyped", 'backend: "pytorch"')
    models.write_torchscript(root, "halved", _sums_config(precision="fp16"))
    models.write_onnx(root, "misstated", _misstated_config(), models.doubling())
    models.write_onnx(root, "unparsable", 'backend: "onnxruntime" max_batch: 3', models.doubling())
    return root


def _lookup_config() -> str:
    return """
        backend: "onnxruntime" max_batch_size: 32
        input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }
        output { name: "values" data_type: TYPE_FP32 dims: [ -1 ] }
        dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: 8 }
        instance_group { count: 1 kind: KIND_CPU }
    """


def _sums_config(precision: str = "fp32") -> str:
    return f"""
        backend: "pytorch" max_batch_size: 4
        input [ {{ name: "right" data_type: TYPE_FP32 dims: 2 }}, {{ name: "left" data_type: TYPE_FP32 dims: 2 }} ]
        output [ {{ name: "OUTPUT__1" data_type: TYPE_FP32 dims: 2 }}, {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: 2 }} ]
        instance_group {{ count: 1 kind: KIND_CPU }}
        parameters {{ key: "threads" value {{ string_value: "1" }} }}
        parameters {{ key: "precision" value {{ string_value: "{precision}" }} }}
    """


def _misstated_config() -> str:
    return """
        backend: "onnxruntime" max_batch_size: 4
        input { name: "x" data_type: TYPE_FP32 dims: 4 }
        output { name: "doubled" data_type: TYPE_FP32 dims: 3 }
    """


@pytest.fixture(scope="session")
async def triton(repository: Path, embed: Callable[..., EmbeddedTriton]) -> AsyncIterator[EmbeddedTriton]:
    async with embed(repository) as server:
        yield server


@pytest.fixture(scope="session")
async def client(triton: EmbeddedTriton) -> AsyncIterator[triton_client.InferenceServerClient]:
    async with triton_client.InferenceServerClient(triton.grpc_address) as made:
        yield made


@pytest.fixture
def events() -> Iterator[Events]:
    """What is logged while the test runs, to wait for."""
    recorder = Events()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[recorder, *before])
    yield recorder
    structlog.configure(processors=before)
