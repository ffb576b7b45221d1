"""The stack of docker/compose.yaml as plain processes: its commands and environments, with the addresses of this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from mlflow import MlflowClient

from tests.export.conftest import CHECKPOINT
from tests.gateway import postgres_server, redis_server
from tests.gateway.redis_server import free_port
from tests.running import REPOSITORY, ROOT, images_input, tidegate
from tests.s3 import S3Server
from tests.test_containers import DOCKER, compose, secrets

_READY_S = 90.0
_PICTURE = ROOT / "examples" / "seven.png"


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the services are, and what they are told."""

    gateways: tuple[int, int]
    grpc: str
    prometheus: str
    key: str
    environment: Mapping[str, str]

    def classify(self, gateway: int, top_k: int = 5) -> httpx.Response:
        """The answer of one of the two gateways."""
        url = f"http://127.0.0.1:{self.gateways[gateway]}/v1/models/digits/classify"
        headers = {"authorization": f"Bearer {self.key}"}
        picture = _PICTURE.read_bytes()
        return httpx.post(url, params={"top_k": top_k}, content=picture, headers=headers, trust_env=False, timeout=30)

    def query(self, expression: str) -> float:
        """The sum of what Prometheus answers; 0 where it has nothing."""
        asked = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, trust_env=False)
        return sum(float(result["value"][1]) for result in asked.json()["data"]["result"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, tracking_uri: str) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    keys = {"S3_ACCESS_KEY": s3.access_key, "S3_SECRET_KEY": s3.secret_key}
    services = compose({**secrets(), **keys, "COMPOSE_PROFILES": "cpu"})["services"]
    ports = {name: free_port() for name in ("redis:6379", "triton:8001", "triton:8002", "gateway:8001", "gateway:8002")}
    places = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    places["minio:9000"] = s3.endpoint.removeprefix("http://")
    with ExitStack() as running:
        postgres = running.enter_context(postgres_server.running())
        places["postgres:5432"] = postgres.create_database("tidegate").rpartition("@")[2].partition("/")[0]

        def environment(service: str, state: str) -> dict[str, str]:
            """What compose gives a service, here."""
            told = {name: _placed(str(value), places) for name, value in services[service]["environment"].items()}
            return {**told, "TIDEGATE_HOST": "127.0.0.1", "TIDEGATE_STATE_DIR": str(directory / state)}

        def start(name: str, command: list[str], told: Mapping[str, str], ready: Callable[[], bool]) -> None:
            running.enter_context(_process(directory / f"{name}.log", command, told, ready))

        command = [redis_server.binary(), *services["redis"]["command"][1:], "--dir", str(directory)]
        command += ["--bind", "127.0.0.1", "--port", str(ports["redis:6379"])]
        start("redis", command, {}, _listens(ports["redis:6379"]))
        _publish_from_mlflow(s3, tracking_uri, environment("triton-cpu", "export"))
        python = [sys.executable, "-m", "tidegate"]
        told = environment("triton-cpu", "triton")
        told |= {"TIDEGATE_GRPC_PORT": str(ports["triton:8001"]), "TIDEGATE_METRICS_PORT": str(ports["triton:8002"])}
        metrics = f"http://{places['triton:8002']}/metrics"
        start("triton", [*python, "triton"], told, _answers(metrics))
        migrated = tidegate(*services["migrate"]["command"], environment=environment("migrate", "migrate"))
        assert migrated.returncode == 0, migrated.stderr
        told = environment("gateway", "keys")
        created = tidegate("keys", "create", "stack", "--requests-per-s", "1000", environment=told)
        assert created.returncode == 0, created.stderr
        gateways = (free_port(), free_port())
        for number, port in enumerate(gateways):
            told = environment("gateway", f"gateway-{number}")
            rest = (ports["gateway:8001"], ports["gateway:8002"]) if number == 0 else (free_port(), free_port())
            told |= {"TIDEGATE_HTTP_PORT": str(port), "TIDEGATE_GRPC_PORT": str(rest[0])}
            told |= {"TIDEGATE_METRICS_PORT": str(rest[1])}
            ready = _answers(f"http://127.0.0.1:{port}/v2/health/ready")
            start(f"gateway-{number}", [*python, "gateway"], told, ready)
        prometheus = _configured_prometheus(directory, places)
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus", f"--config.file={prometheus}", f"--web.listen-address={address}"]
        command.append(f"--storage.tsdb.path={directory / 'prometheus'}")
        start("prometheus", command, {}, _answers(f"http://{address}/-/ready"))
        yield Stack(gateways, places["gateway:8001"], f"http://{address}", created.stdout.strip(), told)


def _placed(text: str, places: Mapping[str, str]) -> str:
    """With the addresses of this machine in place of the names of services."""
    for name, address in places.items():
        text = text.replace(name, address)
    return text.replace("dns:///127.0.0.1", "127.0.0.1")


def _answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return httpx.get(url, trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    return ask


def _listens(port: int) -> Callable[[], bool]:
    def connect() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return connect


@contextmanager
def _process(log: Path, command: list[str], told: Mapping[str, str], ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **told}, stdout=written, stderr=written)
    try:
        deadline = time.monotonic() + _READY_S
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _publish_from_mlflow(s3: S3Server, tracking_uri: str, told: Mapping[str, str]) -> None:
    """What the service `buckets` does, and a second version from a registered checkpoint."""
    shutil.copytree(REPOSITORY, s3.directory / "models")
    client = MlflowClient(tracking_uri)
    run = client.create_run(client.create_experiment("stack"))
    client.log_artifact(run.info.run_id, str(CHECKPOINT))
    client.create_registered_model("stack-digits")
    version = client.create_model_version("stack-digits", f"{run.info.artifact_uri}/{CHECKPOINT.name}", run.info.run_id)
    client.set_registered_model_alias("stack-digits", "champion", version.version)
    source = "mlflow:models:/stack-digits@champion"
    arguments = ("--publish", told["TIDEGATE_MODEL_REPOSITORY"], "--formats", "onnx", "--measure-s", "0")
    exported = tidegate("export", source, *arguments, environment={**told, "TIDEGATE_TRACKING_URI": tracking_uri})
    assert exported.returncode == 0, exported.stderr
    assert "digits version 2 is in s3://" in exported.stdout


def _configured_prometheus(directory: Path, places: Mapping[str, str]) -> Path:
    """The configuration of the container, with the paths and addresses of this machine; it scrapes more often."""
    text = (DOCKER / "prometheus" / "prometheus.yml").read_text()
    here = {
        **places,
        "/etc/prometheus/rules": str(ROOT / "monitoring" / "prometheus"),
        "alertmanager:9093": f"127.0.0.1:{free_port()}",
        "scrape_interval: 5s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }
    path = directory / "prometheus.yml"
    path.write_text(_placed(text, here))
    return path


def test_one_request_goes_through_all_of_it(stack: Stack) -> None:
    first, second = stack.classify(0), stack.classify(1)
    assert first.status_code == 200, first.text
    # Triton reads from S3, and serves what came from MLflow.
    assert (first.json()["predictions"][0]["label"], first.json()["version"]) == ("7", "2")
    assert second.json() == first.json()
    # The other gateway was never asked before: an answer is Redis's. One that Redis gives too late is a miss.
    pairs = [[stack.classify(gateway, top_k).headers["x-tidegate-cache"] for gateway in (0, 1)] for top_k in (1, 2, 3)]
    assert ["miss", "hit"] in pairs
    with triton.InferenceServerClient(stack.grpc) as client:
        headers = {"authorization": f"Bearer {stack.key}"}
        reply = client.infer("digits", images_input(np.zeros((2, 32, 32, 3), np.uint8)), headers=headers)
        assert reply.get_response().model_version == "2"
    # The key is PostgreSQL's: the gateways have no database of their own, and see what is done there.
    listed = tidegate("keys", "list", environment=stack.environment)
    assert " stack " in listed.stdout
    assert not list(Path(stack.environment["TIDEGATE_STATE_DIR"]).glob("*.db"))


def test_its_metrics_are_in_prometheus(stack: Stack) -> None:
    assert stack.classify(0).is_success
    calls = 'tidegate_stage_duration_seconds_count{job="tidegate",stage="total",outcome="ok"}'
    deadline = time.monotonic() + _READY_S
    while not (stack.query(calls) >= 1 and stack.query('nv_inference_request_success{model="digits"}') >= 1):
        assert time.monotonic() < deadline, stack.query("up")
        time.sleep(0.2)
    assert stack.query('up{job="tidegate"}') == 1
    rules: dict[str, Any] = httpx.get(f"{stack.prometheus}/api/v1/rules", trust_env=False).json()["data"]
    loaded = {rule["name"]: rule for group in rules["groups"] for rule in group["rules"]}
    assert loaded and not [rule["lastError"] for rule in loaded.values() if rule.get("lastError")]
    assert json.dumps(rules).count("TidegateDown") >= 1
