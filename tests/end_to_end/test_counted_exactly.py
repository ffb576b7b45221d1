"""What clients count and what the metrics say are the same, to the last call: over four workers, one of which is killed."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from tests.exposed import Samples, by, scraped_when, total
from tests.running import REPOSITORY, Server, running

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CALLS = "tidegate_stage_duration_seconds_count"
_CONNECTIONS = 16
_MODEL_IN_FLIGHT = 3  # One runs, two wait.

_HELD_CONFIG = """
backend: "python"
max_batch_size: 1
input { name: "x" data_type: TYPE_UINT8 dims: 1 }
output { name: "y" data_type: TYPE_UINT8 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { default_queue_policy { max_queue_size: 2 } }
"""
# Answers when the file is there.
_HELD = """
import os
import time

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        while not os.path.exists({path!r}):
            time.sleep(0.01)
        return [
            pb.InferenceResponse([pb.Tensor("y", pb.get_input_tensor_by_name(request, "x").as_numpy())])
            for request in requests
        ]
"""


@dataclass
class Client:
    """Counts what it sends and what comes back."""

    server: Server
    key: str
    outcomes: Counter[str] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    request_bytes: int = 0
    response_bytes: int = 0
    channels: list[grpc.Channel] = field(default_factory=list)

    def channel(self) -> grpc.Channel:
        """A connection of its own, to any of the workers."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        self.channels.append(grpc.insecure_channel(self.server.grpc, options))
        return self.channels[-1]

    def begin(self, channel: grpc.Channel, request: ModelInferRequest, key: str | None = None) -> Any:
        """A call under way."""
        call = channel.unary_unary(_INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
        return call.future(request, metadata=(("authorization", f"Bearer {key or self.key}"),), timeout=60)

    def end(self, call: Any, refusal: str = "") -> None:
        """Count what became of it.

        Args:
            refusal: The outcome that a refusal is to be, where its status means several.
        """
        try:
            reply = call.result()
        except grpc.FutureCancelledError:
            self.outcomes["cancelled"] += 1
        except grpc.RpcError as error:
            self.outcomes[refusal or error.code().name.lower()] += 1
        else:
            self.outcomes["ok"] += 1
            self.response_bytes += reply.ByteSize()
            self.cache[str(dict(call.trailing_metadata())["x-tidegate-cache"])] += 1

    def call(
        self, channel: grpc.Channel, request: ModelInferRequest, key: str | None = None, refusal: str = ""
    ) -> None:
        self.end(self.begin(channel, request, key), refusal)


@dataclass(frozen=True)
class Run:
    """A run, as it was counted on both sides."""

    client: Client
    images: int
    limited: int
    lost: int
    before: Samples
    metrics: Samples


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("counted")
    release = directory / "release"
    with running(directory / "state", WORKERS="4", MODEL_REPOSITORY=str(_repository(directory, release))) as server:
        client = Client(server, server.key)
        channels = [client.channel() for _ in range(_CONNECTIONS)]
        limited = _limited_key(server)
        images = _answered(client, channels)
        _refused(client, channels, limited)
        _shed_and_cancelled(client, channels, release)
        lost, before = _killed(client, release)
        images += _answered(client, [client.channel() for _ in range(_CONNECTIONS)])
        metrics = scraped_when(server.metrics, lambda samples: total(samples, "tidegate_in_flight_calls") == 0)
        for channel in client.channels:
            channel.close()
        yield Run(client, images, len(channels), lost, before, metrics)


def _repository(directory: Path, release: Path) -> Path:
    repository = directory / "models"
    shutil.copytree(REPOSITORY / "digits", repository / "digits")
    (repository / "held" / "1").mkdir(parents=True)
    (repository / "held" / "config.pbtxt").write_text(_HELD_CONFIG)
    (repository / "held" / "1" / "model.py").write_text(_HELD.format(path=str(release)))
    return repository


def _limited_key(server: Server) -> str:
    with httpx.Client(base_url=f"http://{server.http}/admin/v1", headers=server.headers) as admin:
        admin.post("/tenants", json={"name": "acme", "limits": {"images_per_day": 1}}).raise_for_status()
        made = admin.post("/keys", json={"name": "limited", "tenant": "acme"}).raise_for_status()
    return str(made.json()["key"])


def _digits(seed: int, images: int = 1, model: str = "digits", height: int = 32) -> ModelInferRequest:
    pixels = np.random.default_rng(seed).integers(0, 256, (images, height, 32, 3), np.uint8)
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="images", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    return request


def _held() -> ModelInferRequest:
    request = ModelInferRequest(model_name="held", raw_input_contents=[b"x"])
    request.inputs.add(name="x", datatype="UINT8", shape=[1, 1])
    return request


def _answered(client: Client, channels: list[grpc.Channel]) -> int:
    """Hits and misses; how many images."""
    sent = 0
    for number, channel in enumerate(channels * 4):
        request = _digits(seed=number % 8, images=1 + number % 3)
        sent += 1 + number % 3
        client.request_bytes += request.ByteSize()
        client.call(channel, request)
    return sent


def _refused(client: Client, channels: list[grpc.Channel], limited: str) -> None:
    for channel in channels:
        client.call(channel, _digits(0), key="wrong")
        client.call(channel, _digits(0, model="unknown"))
        odd, large = _digits(0, height=31), _digits(0, images=2)
        client.request_bytes += odd.ByteSize() + large.ByteSize()
        client.call(channel, odd)
        client.call(channel, large, limited, refusal="limit_exceeded")


def _shed_and_cancelled(client: Client, channels: list[grpc.Channel], release: Path) -> None:
    calls = _fill(client, channels)
    for channel in channels:
        client.call(channel, _held(), refusal="overloaded")
    for call in calls[1:]:
        call.cancel()
    scraped_when(client.server.metrics, lambda samples: total(samples, "tidegate_in_flight_calls") == 1)
    release.touch()
    for call in calls:
        client.end(call)
    # Until Triton drops them the cancelled ones have their places in its queue.
    scraped_when(client.server.metrics, lambda samples: _dropped(samples) == _MODEL_IN_FLIGHT - 1)
    release.unlink()


def _dropped(samples: Samples) -> float:
    return total(samples, "nv_inference_request_failure_total", model="held", reason="CANCELED")


def _fill(client: Client, channels: list[grpc.Channel]) -> list[Any]:
    """As many calls as the model that is held takes, all of them there."""
    calls = []
    for number, channel in zip(range(1, _MODEL_IN_FLIGHT + 1), channels, strict=False):
        calls.append(client.begin(channel, _held()))
        scraped_when(client.server.metrics, lambda samples: _in_triton(samples, number))
    return calls


def _in_triton(samples: Samples, calls: int) -> bool:
    in_flight = total(samples, "tidegate_in_flight_calls")
    waiting = total(samples, "nv_inference_pending_request_count", model="held")
    return (in_flight, waiting) == (calls, calls - 1)


def _killed(client: Client, release: Path) -> tuple[int, Samples]:
    """Calls that their worker took with it, and what the metrics said before its successor was there."""
    workers = client.server.workers()
    known = {worker: _callers(client.server, worker) for worker in workers}
    channel = client.channel()
    calls = _fill(client, [channel] * _MODEL_IN_FLIGHT)
    (worker,) = [worker for worker in workers if _callers(client.server, worker) - known[worker]]
    worker.kill()
    for call in calls:
        client.end(call, refusal="lost")
    before = scraped_when(
        client.server.metrics,
        lambda samples: total(samples, "tidegate_in_flight_calls") == 0,
    )
    release.touch()
    scraped_when(client.server.metrics, lambda samples: total(samples, "tidegate_calls_lost_total") > 0)
    return client.outcomes.pop("lost"), before


def _callers(server: Server, worker: psutil.Process) -> set[Any]:
    """The other ends of its gRPC connections."""
    port = int(server.grpc.rpartition(":")[2])
    return {
        each.raddr
        for each in worker.net_connections()
        if each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
    }


def test_every_outcome_is_counted(run: Run) -> None:
    assert by(run.metrics, _CALLS, "outcome", stage="total") == run.client.outcomes
    assert set(run.client.outcomes) == {
        "ok", "unauthenticated", "not_found", "invalid_argument", "limit_exceeded", "overloaded", "cancelled",
    }  # fmt: skip


def test_what_was_begun_was_ended_or_lost(run: Run) -> None:
    assert run.lost == _MODEL_IN_FLIGHT
    assert total(run.metrics, "tidegate_calls_lost_total") == run.lost
    assert total(run.metrics, "tidegate_calls_started_total") == sum(run.client.outcomes.values()) + run.lost


def test_a_dead_worker_is_not_at_work_and_its_counts_stay(run: Run) -> None:
    assert total(run.before, "tidegate_max_in_flight_calls") == 3 * 1_024
    assert total(run.metrics, "tidegate_max_in_flight_calls") == 4 * 1_024
    assert (
        total(run.before, "tidegate_calls_started_total")
        == total(run.metrics, "tidegate_calls_started_total") - len(run.client.channels[-_CONNECTIONS:]) * 4
    )


def test_hits_and_misses_are_counted(run: Run) -> None:
    counted = by(run.metrics, "tidegate_cache_requests_total", "status", model="digits")
    answered = {status: run.client.cache[status] for status in ("hit", "miss")}
    assert run.client.cache["hit"] > 0
    # Requests that Triton refused were not in the cache; those that a limit refused did not come that far.
    assert counted == {"hit": answered["hit"], "miss": answered["miss"] + run.limited, "bypass": run.limited}


def test_bytes_and_images_are_counted(run: Run) -> None:
    assert total(run.metrics, "tidegate_request_bytes_total", model="digits") == run.client.request_bytes
    assert total(run.metrics, "tidegate_images_total", model="digits") == run.images
    held = total(run.metrics, "tidegate_response_bytes_total", model="held")
    assert total(run.metrics, "tidegate_response_bytes_total", model="digits") + held == run.client.response_bytes


def test_a_refusal_names_its_limit(run: Run) -> None:
    assert by(run.metrics, "tidegate_refused_calls_total", "reason") == {
        "model-queue": run.client.outcomes["overloaded"],
        "tenant-images-today": run.client.outcomes["limit_exceeded"],
    }


def test_a_tenants_use_is_its_own(run: Run) -> None:
    assert by(run.metrics, "tidegate_tenant_calls_total", "outcome", tenant="acme") == {"limit_exceeded": run.limited}
    others = sum(run.client.outcomes.values()) - run.limited
    assert total(run.metrics, "tidegate_tenant_calls_total", tenant="_none") == others


def test_a_keys_use_is_its_own(run: Run) -> None:
    keys = by(run.metrics, "tidegate_key_calls_total", "key")
    unknown = run.client.outcomes["unauthenticated"]
    assert keys.pop("_none") == unknown
    assert keys.pop(run.client.key.split("_")[1]) == sum(run.client.outcomes.values()) - run.limited - unknown
    assert list(keys.values()) == [run.limited]


def test_batches_are_counted_by_size_and_reason(run: Run) -> None:
    batches = total(run.metrics, "tidegate_batch_size_count", model="digits")
    assert batches == total(run.metrics, "nv_inference_exec_count_total", model="digits")
    assert total(run.metrics, "tidegate_batch_size_sum", model="digits") == total(
        run.metrics, "nv_inference_count_total", model="digits"
    )
    reasons = by(run.metrics, "tidegate_batches_total", "reason", model="digits")
    # The warm-up of each instance is full, and a batch of the preferred size is.
    assert reasons["full"] >= 2
    assert reasons == {"queue-empty": batches - reasons["full"], "full": reasons["full"]}
    assert by(run.metrics, "tidegate_batches_total", "reason", model="held") == {"full": 2}
    assert total(run.metrics, "tidegate_max_batch_size", model="digits") == 32
    assert total(run.metrics, "tidegate_max_queue_delay_seconds", model="digits") == 0.0
