"""Hours in short: callers that come, go and change their minds, while nothing may grow."""

import asyncio
import random
import time
from pathlib import Path

import psutil

from tests.chaos.load import OK, Call, Load, outcomes, p99_ms
from tests.chaos.replicas import write
from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged

_EVERY_S = 5.0


async def soaked(directory: Path, seconds: float) -> Row:
    """Steady load, connections that are closed and opened, and a tenth of the calls cancelled."""
    row = Row(
        f"{seconds / 60:.2g}-minute soak, churn of clients and cancels", "flat RSS, file descriptors, tasks, /dev/shm"
    )
    async with staged(directory, write, WORKERS="2") as stage:
        async with Load(stage.server.grpc, stage.key) as load:
            rate = load.capacity / 2
        await _churn(stage, rate, min(20.0, seconds / 3))  # What is made once is made.
        samples = [await _sample(stage)]
        calls: list[Call] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            calls += await _churn(stage, rate, _EVERY_S)
            samples.append(await _sample(stage))
        third = max(1, len(samples) // 3)
        row.figures = {"calls": len(calls), "outcomes": outcomes(calls), "p99_ms": p99_ms(calls)}
        # What the last third has more than the first, of what the first has.
        for name, allowed in {
            "gateway_rss_mib": 0.05,
            "triton_rss_mib": 0.05,
            "descriptors": 0.1,
            "tasks": 0.2,
            "shm_mib": 0.1,
        }.items():
            early = sum(sample[name] for sample in samples[:third]) / third
            late = sum(sample[name] for sample in samples[-third:]) / third
            row.figures[name] = f"{early:.1f} → {late:.1f}"
            row.need(late <= early * (1 + allowed) + 2, f"{name} rose from {early:.1f} to {late:.1f}")
        row.need(outcomes(calls).keys() <= {OK, "CANCELLED"}, f"calls ended as {outcomes(calls)}")
    return row


async def _churn(stage: Stage, rate: float, seconds: float) -> list[Call]:
    async with Load(stage.server.grpc, stage.key, calibration_s=0) as load:
        running = asyncio.create_task(load.run(rate, seconds))
        while not running.done():
            await asyncio.sleep(0.2)
            if load._tasks:
                random.choice(tuple(load._tasks)).cancel()
        return await running


async def _sample(stage: Stage) -> dict[str, float]:
    await asyncio.sleep(1)
    workers, tritons = stage.workers(), stage.tritons()
    served = [process for triton in tritons for process in (triton, *triton.children())]
    return {
        "gateway_rss_mib": _mib(workers),
        "triton_rss_mib": _mib(served),
        "descriptors": sum(process.num_fds() for process in (*workers, *tritons)),
        "tasks": await stage.metric("tidegate_tasks"),
        "shm_mib": stage.shared_memory() / 2**20,
    }


def _mib(processes: list[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 2**20
