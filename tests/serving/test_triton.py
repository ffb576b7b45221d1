"""The embedded Triton's life: start, death, restart, stop."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_client

from serving.errors import TritonStartFailed
from serving.shared_memory import SHARED_MEMORY
from serving.triton import EmbeddedTriton
from tests.serving import models
from tests.serving.conftest import SETTINGS
from tests.serving.events import Events
from tests.serving.infer import infer

Embed = Callable[..., EmbeddedTriton]
X = np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    models.write_onnx(
        root, "doubling", 'backend: "onnxruntime" instance_group { count: 1 kind: KIND_CPU }', models.doubling()
    )
    return root


def group(pid: int) -> list[psutil.Process]:
    """tritonserver and its stubs."""
    server = psutil.Process(pid)
    return [server, *server.children()]


def end(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=10)[1]


def regions() -> set[str]:
    """The shared memory of this process's servers."""
    return {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(f"tidegate_{os.getpid()}_")}


async def served(triton: EmbeddedTriton) -> None:
    async with triton_client.InferenceServerClient(triton.grpc_address) as client:
        answer = await infer(client, "doubling", {"x": X}, ["doubled"])
        np.testing.assert_array_equal(answer["doubled"], X * 2)


def assert_free(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        # Connections that the server closed first may still be in TIME_WAIT; a listener is refused all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))


async def test_stop_leaves_no_process_no_shared_memory_and_no_port(small: Path, embed: Embed) -> None:
    others = regions()
    triton = embed(small)
    await triton.start()
    assert triton.is_ready and triton.pid is not None
    await served(triton)
    async with httpx.AsyncClient() as http:
        assert "nv_inference_count" in (await http.get(triton.metrics_url)).text
    processes = group(triton.pid)
    assert len(processes) == 2
    assert regions() > others
    await triton.stop()
    await triton.stop()
    assert not triton.is_ready
    assert triton.pid is None
    assert end(processes)
    assert regions() == others
    assert_free(triton.grpc_address)


async def test_a_killed_triton_serves_again_on_the_same_ports(small: Path, embed: Embed, events: Events) -> None:
    others = regions()
    async with embed(small) as triton:
        address, pid = triton.grpc_address, triton.pid
        assert pid is not None
        before, processes = regions() - others, group(pid)
        events.forget()
        os.kill(pid, signal.SIGKILL)
        await events.wait_for("triton.ready")
        assert triton.grpc_address == address
        assert triton.restarts == 1
        await served(triton)
        assert end(processes)
        assert not before & regions()
    assert regions() == others


async def test_a_model_whose_stub_is_killed_is_loaded_anew(small: Path, embed: Embed, events: Events) -> None:
    others = regions()
    async with embed(small) as triton:
        assert triton.pid is not None
        _, stub = group(triton.pid)
        stub.kill()
        await events.wait_for("triton.model_reloaded")
        await served(triton)
        assert triton.restarts == 0
        replaced = group(triton.pid)[-1]
        assert replaced.pid != stub.pid and replaced.status() != psutil.STATUS_ZOMBIE
    assert regions() == others


async def test_a_repository_that_is_not_there_is_the_reason_of_a_failed_start(tmp_path: Path, embed: Embed) -> None:
    triton = embed(tmp_path / "missing")
    with pytest.raises(TritonStartFailed, match="could not start; .*failed to stat file .*missing"):
        await triton.start()
    assert triton.pid is None


async def test_a_triton_that_is_not_ready_in_time_is_stopped(small: Path, embed: Embed) -> None:
    others = regions()
    triton = embed(small, SETTINGS.model_copy(update={"startup_timeout_s": 0.2}))
    with pytest.raises(TritonStartFailed, match=r"was not ready after 0\.2 s"):
        await triton.start()
    assert triton.pid is None
    assert regions() == others


async def test_a_start_that_is_cancelled_leaves_nothing(small: Path, embed: Embed) -> None:
    triton = embed(small)
    start = asyncio.create_task(triton.start())
    while triton.pid is None:
        await asyncio.sleep(0)
    processes = group(triton.pid)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert end(processes)


async def test_a_taken_port_is_the_reason_of_a_failed_start(small: Path, embed: Embed) -> None:
    triton = embed(small)
    host, port = triton.grpc_address.rsplit(":", 1)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((host, int(port)))
        thief.listen()
        with pytest.raises(TritonStartFailed, match=f"exited with status 1; .*{port}"):
            await triton.start()


async def test_a_named_config_is_taken(tmp_path: Path, embed: Embed) -> None:
    models.write_onnx(tmp_path, "doubling", 'backend: "tensorrt"', models.doubling())
    (tmp_path / "doubling" / "configs").mkdir()
    (tmp_path / "doubling" / "configs" / "cpu.pbtxt").write_text('backend: "onnxruntime"')
    async with embed(tmp_path, SETTINGS.model_copy(update={"model_config_name": "cpu"})) as triton:
        await served(triton)
