"""Versions swapped under load, and canaries that are bad."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos import models
from tests.chaos.idle import Idle
from tests.chaos.load import Load, failed, outcomes, p99_ms
from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged, until

_FOLLOW_S = 2.2
_BAD = {"wrong": 2, "slow": 3, "failing": 4}


def _write(repository: Path) -> None:
    models.write_work(repository, {1: "none", 2: "none"})


async def swapped(where: Path | Stage, times: int) -> Row:
    """One version after the other is loaded, given the calls, and the one before unloaded."""
    row = Row(
        f"version 1 → 2 by load, promote, unload, {times} times",
        "0 failed, 0 answers of an unloaded or unready version",
    )
    async with _at_version_1(where, _write, (1,), WORKERS="2") as stage, Load(stage.server.grpc, stage.key) as load:
        # When each version was being loaded, and when it was gone.
        loaded: list[tuple[int, float, float]] = []
        told: list[tuple[int, float]] = []
        since = {1: time.monotonic()}
        running = asyncio.create_task(load.run(load.capacity / 2, 3_600))
        for turn in range(times):
            old, new = (1, 2) if turn % 2 == 0 else (2, 1)
            since[new] = time.monotonic()
            await _serve(stage, tuple(sorted((old, new))))
            await _put(stage, {"aliases": {"stable": new}})
            told.append((old, time.monotonic()))
            await asyncio.sleep(_FOLLOW_S)
            await _serve(stage, (new,))
            loaded.append((old, since[old], time.monotonic()))
        loaded.append((new, since[new], float("inf")))
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await load.answered()
        strange = [
            call
            for call in load.calls
            if call.version and not any(v == call.version and a <= call.ended and call.due <= b for v, a, b in loaded)
        ]
        # How long after the change a call still went to the version before.
        followed_s = max(
            call.due - at
            for old, at in told
            for call in load.calls
            if call.version == old and call.due < at + _FOLLOW_S
        )
        row.figures = {
            "swaps": times,
            "all_workers_followed_after_s": round(max(0.0, followed_s), 2),
            "calls": len(load.calls),
            "failed": failed(load.calls),
            "outcomes": outcomes(load.calls),
            "answers_of_a_version_not_loaded": len(strange),
            "p99_ms": p99_ms(load.calls),
        }
        row.need(not failed(load.calls), f"{failed(load.calls)} calls failed")
        row.need(not strange, f"{len(strange)} answers came of a version that was not loaded")
        row.need(followed_s <= 2, f"workers followed after {followed_s:.2f} s")
        row.need({call.version for call in load.calls} == {1, 2}, "not both versions answered")
    return row


async def bad_canary(
    where: Path | Stage, fault: str, seconds: float, control: Idle, before_s: float = 10, percent: float = 10
) -> Row:
    """A canary with some of the calls."""
    row = Row(f"canary that is {fault}", "rolled back within its sample; callers outside the canary untouched")
    bad, sample = _BAD[fault], 20
    write = lambda repository: models.write_work(repository, {1: "none", bad: fault}, (1, bad))  # noqa: E731
    async with _at_version_1(where, write, (1, bad)) as stage, Load(stage.server.grpc, stage.key) as load:
        before = await load.run(load.capacity / 2, before_s)
        guard = {"min_sample": sample, "max_slowdown": 2.0, "max_disagreement": 0.1 if fault == "wrong" else None}
        await _put(
            stage,
            {
                "aliases": {"stable": 1, "canary": bad},
                "weights": {"stable": 100 - percent, "canary": percent},
                "guard": guard,
            },
        )
        running = asyncio.create_task(load.run(load.capacity / 2, seconds))
        # Not by the metrics, whose reading takes time from the calls.
        rolled = await until(lambda: "canary is rolled back" in stage.server.log, seconds)
        calls = await running
        canary = [call for call in calls if call.version == bad or call.outcome == "INTERNAL"]
        others = [call for call in calls if call.version == 1]
        audit = (await stage.admin("GET", "/admin/v1/audit?limit=1")).json()[0]
        weight = await stage.metric("tidegate_traffic_weight", model="work", version=str(bad))
        counted = await stage.metric("tidegate_canary_rollbacks_total", model="work")
        judged_before, judged = control.undisturbed(before), control.undisturbed(others)
        row.figures = {
            "calls": len(calls),
            "canary_calls": len(canary),
            "rolled_back_after_s": rolled,
            "reason": audit["target"],
            "others": len(others),
            "others_wrong": sum(not call.right for call in others),
            "others_p99_before_ms": p99_ms(before),
            "others_p99_ms": p99_ms(others),
            "others_not_held_up": len(judged),
            "their_p99_before_ms": p99_ms(judged_before),
            "their_p99_ms": p99_ms(judged),
            "outcomes": outcomes(calls),
        }
        row.need(rolled is not None and weight == 0 and counted > 0, "it was not rolled back")
        row.need(audit["action"] == "traffic.rollback", "the reason is not in the audit log")
        # The sample; a copy may be in flight for each that is compared, and a slow sample is judged every 20 answers.
        row.need(len(canary) <= 2 * sample + 20, f"{len(canary)} calls came to the canary")
        row.need(len(others) + len(canary) == len(calls), f"calls outside the canary failed: {outcomes(calls)}")
        row.need(all(call.right for call in others), "calls outside the canary were answered wrong")
        few = len(judged_before) < len(before) / 2 or len(judged) < len(others) / 2
        row.need(not few, "the machine held up too many calls to say whether they were slower")
        row.need(p99_ms(judged) <= 2 * p99_ms(judged_before), "calls outside the canary were slower")
    return row


@asynccontextmanager
async def _at_version_1(
    where: Path | Stage, write: Callable[[Path], None], served: tuple[int, ...], **settings: str
) -> AsyncIterator[Stage]:
    """A stage that serves these versions, and where version 1 answers every call."""
    async with staged(where, write, **settings) as stage:
        await _serve(stage, served)
        await _put(stage, {"aliases": {"stable": 1}})
        await asyncio.sleep(_FOLLOW_S)
        yield stage


async def _put(stage: Stage, policy: object) -> None:
    await stage.admin("PUT", "/admin/v1/traffic/work", policy)


async def _serve(stage: Stage, versions: tuple[int, ...]) -> None:
    models.serve_work(stage.repository, versions)
    await stage.admin("POST", "/v2/repository/models/work/load")
