"""A bad network between the gateway and its Tritons."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil

from gateway.auth.migrations import upgrade
from serving.settings import SupervisionSettings, TritonSettings
from serving.triton import EmbeddedTriton
from tests.chaos.load import Load, failed, outcomes, p99_ms
from tests.chaos.proxy import Proxy
from tests.chaos.replicas import write
from tests.chaos.row import Row
from tests.chaos.stage import until
from tidegate.ports import held

_STOP_S = 30.0


async def bad_network(directory: Path, seconds: float) -> Row:
    """Delay, loss and silence, one after the other, on the way to both replicas or one."""
    row = Row(
        "slow network between gateway and Triton (delay, loss, half-open)",
        "deadlines hold, no leak of connections or tasks",
    )
    async with _stage(directory) as (address, metrics, process, proxies):
        async with Load(address, {"": "none"}, deadline_s=4) as load:
            await load.run(load.capacity / 2, 3)
            before = await _held(process, metrics, proxies)
            changes: dict[str, dict[str, float]] = {
                "delay_100_ms": {"delay_s": 0.1},
                "loss_5_percent": {"loss": 0.05},
                "half_open": {"silent": True},
            }
            for name, change in changes.items():
                # Both for what slows, one for what takes away.
                for proxy in proxies if name != "half_open" else proxies[1:]:
                    for field, value in change.items():
                        setattr(proxy, field, value)
                calls = await load.run(load.capacity / 2, seconds)
                for proxy in proxies:
                    proxy.delay_s, proxy.loss, proxy.silent = 0.0, 0.0, False
                late = sum(call.seconds > load.deadline_s + 0.1 for call in calls)
                row.figures[name] = {
                    "calls": len(calls),
                    "outcomes": outcomes(calls),
                    "p99_ms": p99_ms(calls),
                    "worst_ms": round(max(call.seconds for call in calls) * 1_000, 1),
                }
                row.need(not late, f"{name}: {late} calls ended past their deadline")
                row.need(not failed(calls), f"{name}: {failed(calls)} calls failed")
                await load.run(load.capacity / 2, 4)
            after = await _held(process, metrics, proxies)
            row.figures |= {"held_before": before, "held_after": after}
            for what, most in {"connections": 4, "descriptors": 6, "tasks": 4}.items():
                row.need(after[what] <= before[what] + most, f"{what} rose from {before[what]} to {after[what]}")
    return row


@asynccontextmanager
async def _stage(directory: Path) -> AsyncIterator[tuple[str, str, psutil.Process, list[Proxy]]]:
    """Two Tritons, a proxy before each, and a gateway worker that knows the proxies alone."""
    repository, state_dir = directory / "models", directory / "state"
    repository.mkdir(parents=True)
    write(repository)
    settings = TritonSettings(exit_timeout_s=5, supervision=SupervisionSettings(exit_timeout_s=10))
    async with AsyncExitStack() as stack:
        proxies = []
        for number in range(2):
            triton = EmbeddedTriton(
                repository, state_dir=state_dir, settings=settings, environment=os.environ, number=number
            )
            await stack.enter_async_context(triton)
            proxies.append(await stack.enter_async_context(Proxy(triton.grpc_address)))
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{state_dir / 'tidegate.db'}")
        http, rpc, metrics = (stack.enter_context(held("127.0.0.1", 0, "")) for _ in range(3))
        variables = {
            "HTTP_PORT": str(http),
            "GRPC_PORT": str(rpc),
            "METRICS_PORT": str(metrics),
            "STATE_DIR": str(state_dir),
            "AUTH__MODE": "off",
            "UPSTREAM__ADDRESS": ",".join(proxy.address for proxy in proxies),
            "UPSTREAM__KEEPALIVE_S": "2",
            "UPSTREAM__CHECK_TIMEOUT_S": "1.2",
        }
        log = stack.enter_context((state_dir / "log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "gateway"],
            env={**os.environ, **{f"TIDEGATE_{name}": value for name, value in variables.items()}},
            stdout=log,
            stderr=log,
        )
        try:
            assert await until(lambda: _is_ready(http), 60) is not None, (state_dir / "log").read_text()
            yield f"127.0.0.1:{rpc}", f"http://127.0.0.1:{metrics}/metrics", psutil.Process(process.pid), proxies
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, _STOP_S)


async def _held(process: psutil.Process, metrics: str, proxies: list[Proxy]) -> dict[str, int]:
    """What could leak, when it has had time to go."""
    started = time.monotonic()
    while True:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            text = (await client.get(metrics)).text
        tasks = next(line for line in text.splitlines() if line.startswith("tidegate_tasks "))
        found = {
            "connections": sum(proxy.connections for proxy in proxies),
            "descriptors": process.num_fds(),
            "tasks": int(float(tasks.split()[1])),
        }
        if time.monotonic() - started > 3:
            return found
        await asyncio.sleep(0.5)


async def _is_ready(port: int) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/v2/health/ready")).status_code == 200
    except httpx.HTTPError:
        return False
