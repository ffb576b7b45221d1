"""Foreign models, new versions, a Triton that dies, and an end that leaves nothing."""

import asyncio
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from gateway.upstream.regions import SHARED_MEMORY
from tests.running import REPOSITORY, ROOT, Server, images_input, running, tidegate

_RECOVERY_S = 15.0
_CALL_S = 5.0


@pytest.fixture
def foreign_repository(tmp_path: Path) -> Path:
    """A repository that this project never saw: a model that doubles, and one that is broken."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    repository = tmp_path / "models"
    for name in ("double", "broken"):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    onnx.save(model, repository / "double" / "1" / "model.onnx")
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not a model")
    return repository


def test_a_foreign_repository_is_served_and_a_broken_model_is_named(foreign_repository: Path, tmp_path: Path) -> None:
    with running(tmp_path / "state", MODEL_REPOSITORY=str(foreign_repository)) as server:
        tensor = triton.InferInput("x", [2, 4], "FP32")
        values = np.arange(8, dtype=np.float32).reshape(2, 4)
        tensor.set_data_from_numpy(values)
        with triton.InferenceServerClient(server.grpc) as client:
            reply = client.infer("double", [tensor], headers=server.headers)
            np.testing.assert_array_equal(reply.as_numpy("y"), values * 2)
            assert not client.is_model_ready("broken", headers=server.headers)
        banner = (server.state_dir / "banner").read_text()
        assert "Tidegate serves double from" in banner
        assert "not served: broken" in banner


def test_a_published_version_is_loaded_by_command(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY, repository)
    with running(tmp_path / "state", MODEL_REPOSITORY=str(repository)) as server:
        published = server.command("export", ROOT / "tests" / "data" / "digits.ckpt", "--publish", repository)
        assert published.returncode == 0, published.stderr
        loaded = server.command("models", "load", "digits")
        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout.splitlines()[:2] == ["digits is loaded.", "digits_encoded is loaded."]
        file = (ROOT / "examples" / "seven.png").read_bytes()
        # The other worker learns of it within a second.
        deadline = time.monotonic() + 5
        versions: set[str] = set()
        while versions != {"2"} and time.monotonic() < deadline:
            with httpx.Client(base_url=f"http://{server.http}", headers=server.headers) as client:
                versions = {client.post("/v1/models/digits/classify", content=file).json()["version"] for _ in range(4)}
        assert versions == {"2"}
        listed = server.command("models", "list").stdout
        assert [line.split()[1] for line in listed.splitlines() if line.startswith("digits ")] == ["1", "2"]


async def test_a_killed_triton_fails_fast_and_is_served_again(tmp_path: Path) -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    with running(tmp_path / "state") as server:
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            seen: list[tuple[float, str]] = []
            stop = asyncio.Event()

            async def load(seed: int) -> None:
                random = np.random.default_rng(seed)
                while not stop.is_set():
                    image = random.integers(0, 256, (1, 32, 32, 3), np.uint8)
                    started = time.monotonic()
                    try:
                        await client.infer(
                            "digits", images_input(image), headers=server.headers, client_timeout=_CALL_S
                        )
                        seen.append((time.monotonic(), "OK"))
                    except InferenceServerException as error:
                        seen.append((time.monotonic(), str(error.status()).removeprefix("StatusCode.")))
                        assert time.monotonic() - started < _CALL_S, "a call hung"
                        await asyncio.sleep(0.02)

            callers = [asyncio.create_task(load(seed)) for seed in range(4)]
            await asyncio.sleep(1)
            killed_at = time.monotonic()
            os.kill(server.triton_pid(), signal.SIGKILL)
            while not (_failed_after(seen, killed_at) and seen[-1][1] == "OK"):
                assert time.monotonic() - killed_at < _RECOVERY_S, "not served again in time"
                await asyncio.sleep(0.05)
            stop.set()
            await asyncio.gather(*callers)
            assert {outcome for _, outcome in seen} == {"OK", "UNAVAILABLE"}
            reply = await client.infer("digits", images_input(image), headers=server.headers)
            assert reply.as_numpy("scores").shape == (1, 10)


def _failed_after(seen: list[tuple[float, str]], moment: float) -> bool:
    return any(at > moment and outcome != "OK" for at, outcome in seen)


def test_a_killed_worker_is_replaced_and_so_are_all_when_their_parent_is_killed(tmp_path: Path) -> None:
    with running(tmp_path / "state", WORKERS="1") as server:
        parent, (first,) = server.parent_of_workers(), server.workers()
        # With more, or with an event loop, it could not be forked safely.
        assert parent.num_threads() == 1
        first.kill()
        first.wait(_CALL_S)
        _wait_until_ready(server)
        (second,) = server.workers()
        assert server.parent_of_workers() == parent
        parent.kill()
        second.wait(_CALL_S)
        _wait_until_ready(server)
        assert server.parent_of_workers() != parent


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _RECOVERY_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://{server.http}/v2/health/ready", timeout=1).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("no worker came back")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_end_leaves_no_process_no_region_and_no_port(tmp_path: Path, ending: signal.Signals) -> None:
    with running(tmp_path / "state") as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) > 3
        prefix = f"tidegate_{server.process.pid}_"
        assert _regions(prefix)
        server.process.send_signal(ending)
        assert server.process.wait(60) == 0
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        assert _regions(prefix) == []
        for address in (server.http, server.grpc, server.metrics):
            host, port = address.split(":")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, int(port)))
        assert not (server.state_dir / "endpoints.json").exists()


def _regions(prefix: str) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]


def test_large_tensors_leave_no_shared_memory_behind(foreign_repository: Path, tmp_path: Path) -> None:
    """Neither the end nor a worker that is killed: not a file, and not a region in Triton."""
    (foreign_repository / "double" / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 100000\n')
    settings = {"MODEL_REPOSITORY": str(foreign_repository), "WORKERS": "1", "LIMITS__MAX_BATCH": "100000"}
    with running(tmp_path / "state", **settings) as server:
        values = np.random.default_rng(0).random((100_000, 4), np.float32)
        tensor = triton.InferInput("x", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)

        def ask() -> set[str]:
            """The files of the regions that Triton has then."""
            deadline = time.monotonic() + _RECOVERY_S
            while True:
                try:
                    with triton.InferenceServerClient(server.grpc) as client:
                        reply = client.infer("double", [tensor], headers=server.headers)
                    break
                except InferenceServerException:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            np.testing.assert_array_equal(reply.as_numpy("y"), values * 2)
            with triton.InferenceServerClient(server.triton_address()) as inner:
                regions = inner.get_system_shared_memory_status(as_json=True).get("regions", {})
                return {str(region["key"]).removeprefix("/") for region in regions.values()}

        (before,) = ask()
        assert (SHARED_MEMORY / before).exists()
        (worker,) = server.workers()
        worker.kill()
        worker.wait(5)
        deadline = time.monotonic() + _RECOVERY_S
        while before in (left := ask()):
            assert time.monotonic() < deadline, "Triton still has the region of the worker that was killed"
        (after,) = left
        assert not (SHARED_MEMORY / before).exists() and (SHARED_MEMORY / after).exists()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not (SHARED_MEMORY / after).exists()


def test_a_cancelled_call_is_cancelled_in_triton(tmp_path: Path) -> None:
    """Triton counts as cancelled what it took out of its queue."""
    repository = tmp_path / "models"
    (repository / "slow" / "1").mkdir(parents=True)
    (repository / "slow" / "config.pbtxt").write_text(_SLOW_CONFIG)
    (repository / "slow" / "1" / "model.py").write_text(_SLOW_MODEL)
    with running(tmp_path / "state", MODEL_REPOSITORY=str(repository)) as server:

        async def calls() -> None:
            async with triton_aio.InferenceServerClient(server.grpc) as client:
                tensor = triton.InferInput("x", [1, 1], "FP32")
                tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
                first = asyncio.create_task(client.infer("slow", [tensor], headers=server.headers))
                await asyncio.sleep(0.2)
                waiting = [
                    asyncio.create_task(client.infer("slow", [tensor], headers=server.headers)) for _ in range(10)
                ]
                await asyncio.sleep(0.2)
                for call in waiting:
                    call.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                await first
                await client.infer("slow", [tensor], headers=server.headers)
                statistics = await client.get_inference_statistics("slow", headers=server.headers)
                # Of twelve: Triton hands an instance its next work or two ahead, and those cannot be called back.
                assert statistics.model_stats[0].execution_count <= 5

        asyncio.run(calls())


_SLOW_CONFIG = """
backend: "python"
max_batch_size: 1
dynamic_batching {}
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

_SLOW_MODEL = """
import time

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(1)
        outputs = [pb.Tensor("y", pb.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]
        return [pb.InferenceResponse([output]) for output in outputs]
"""


def test_a_taken_port_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = tidegate(
            "up",
            environment={
                "TIDEGATE_HTTP_PORT": port,
                "TIDEGATE_GRPC_PORT": "0",
                "TIDEGATE_METRICS_PORT": "0",
                "TIDEGATE_STATE_DIR": str(tmp_path),
            },
        )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines() == [
        f"tidegate: port {port} of 127.0.0.1 is taken; set TIDEGATE_HTTP_PORT to another, or to 0"
    ]
