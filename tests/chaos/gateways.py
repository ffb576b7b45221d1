"""Faults of the gateway itself, and more load than there is capacity for."""

import asyncio
import signal
import time
from pathlib import Path

from tests.chaos import models
from tests.chaos.idle import Idle
from tests.chaos.load import OK, Load, failed, outcomes, p99_ms
from tests.chaos.replicas import write
from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged, until

# A tenth is of the high tier, so that these alone fit at five times the capacity too.
_TIERS = ("high", "standard", "low", "low", "standard", "low", "standard", "low", "standard", "low")


async def worker_ended(where: Path | Stage, ending: signal.Signals, seconds: float) -> Row:
    """One of two workers is told to end, or killed; another takes its place."""
    must = "0 failed" if ending is signal.SIGTERM else "only that worker's in-flight fail"
    row = Row(f"gateway {ending.name} of one worker", f"{must}; respawn < 3 s")
    async with staged(where, write, WORKERS="2") as stage:
        async with Load(stage.server.grpc, stage.key, connections=16) as load:
            await load.run(load.capacity / 2, 2)
            running = asyncio.create_task(load.run(load.capacity / 2, seconds))
            await asyncio.sleep(2)
            worker = stage.workers()[0]
            served = stage.server.log.count("worker serves")
            at = time.monotonic()
            worker.send_signal(ending)
            gone = await until(lambda: not worker.is_running() or worker.status() == "zombie", 20)
            back = await until(lambda: stage.server.log.count("worker serves") > served, 20)
            calls = await running
            lost = [call for call in calls if call.outcome != OK]
            under_way = [call for call in calls if call.due <= at <= call.ended]
            row.figures = {
                "calls": len(calls),
                "failed": len(lost),
                "outcomes": outcomes(calls),
                "under_way_at_both_workers": len(under_way),
                "ended_after_s": gone,
                "replaced_s_after_that": back,
            }
            row.need(back is not None and back < 3, f"another served after {back} s")
            if ending is signal.SIGTERM:
                row.need(not lost, f"{len(lost)} calls failed")
                row.need('"worker ended"' in stage.server.log, "it did not end by itself")
            else:
                # Those that were written to a connection that was not known to be dead are in flight too.
                strangers = [call for call in lost if not call.due <= at + 0.1 or call.ended < at]
                row.need(not strangers, f"{len(strangers)} calls failed that were not in flight")
    return row


async def stopped_altogether(directory: Path) -> Row:
    """SIGTERM of the whole `tidegate up` with calls under way."""
    row = Row("SIGTERM of tidegate up", "not-ready first, calls under way are answered, exit 0")
    async with staged(directory, write, LIMITS__LAME_DUCK_S="1") as stage:
        async with Load(stage.server.grpc, stage.key) as load:
            running = asyncio.create_task(load.run(load.capacity / 2, 1))
            await asyncio.sleep(0.5)
            stage.server.process.send_signal(signal.SIGTERM)
            unready = await until(lambda: _not_ready(stage), 5)
            calls = await running
            status = await asyncio.to_thread(stage.server.process.wait, 60)
            row.figures = {"calls": len(calls), "failed": failed(calls), "not_ready_after_s": unready, "status": status}
            row.need(not failed(calls), f"{failed(calls)} calls failed")
            row.need(unready is not None, "it never said that it was not ready")
            row.need(status == 0, f"it ended with status {status}")
    return row


async def overloaded(directory: Path, factor: float, seconds: float, control: Idle) -> Row:
    """More calls than can be answered, of all tiers."""
    row = Row(
        f"overload at {factor:g}× capacity, mixed priorities, for {seconds:g} s",
        "goodput ≥ 90 % of peak, accepted p99 ≤ 2 × the unloaded p99 + queue bound, shed as RESOURCE_EXHAUSTED, high "
        "priority unharmed; normal within 5 s after",
    )
    # Slow, so that five times as many calls as it answers are few enough for callers and gateway on two cores.
    service_ms, queue_ms = 100, 250
    slow = lambda repository: models.write_work(repository, {1: "none"}, service_ms=service_ms)  # noqa: E731
    limits = {"FLOOR": "4", "INITIAL": "4", "CEILING": "64", "TOLERANCE": "1.5", "MAX_WAIT_S": str(queue_ms / 1_000)}
    settings = {f"CONCURRENCY__{name}": value for name, value in limits.items()}
    async with staged(directory, slow, **settings) as stage, Load(stage.server.grpc, stage.keys) as load:
        alone = await load.run(load.capacity / 5, 5, ("standard",))
        peak = await _goodput(load, load.capacity * 0.95, min(10.0, seconds))
        at = time.monotonic()
        calls = await load.run(load.capacity * factor, seconds, _TIERS)
        took_s = time.monotonic() - at
        settled = await load.run(load.capacity / 2, 8, _TIERS)
        good = [call for call in calls if call.outcome == OK]
        high = [call for call in calls if call.tier == "high"]
        judged_alone, judged = control.undisturbed(alone), control.undisturbed(good)
        allowed_ms = 2 * p99_ms(judged_alone) + queue_ms
        after = [call for call in settled if call.due > at + took_s + 5]
        goodput = round(len(good) / took_s, 1)
        row.figures = {
            "service_ms": service_ms,
            "capacity_per_s": load.capacity,
            "calls": len(calls),
            "outcomes": outcomes(calls),
            "peak_goodput_per_s": peak,
            "goodput_per_s": goodput,
            "unloaded_p99_ms": p99_ms(alone),
            "accepted_p99_ms": p99_ms(good),
            "not_held_up": f"{len(judged)} of {len(good)}",
            "their_unloaded_p99_ms": p99_ms(judged_alone),
            "their_accepted_p99_ms": p99_ms(judged),
            "allowed_p99_ms": round(allowed_ms, 1),
            "high_answered": f"{len(high) - failed(high)} of {len(high)}",
            "high_p99_ms": p99_ms(high),
            "after_5_s_failed": failed(after),
            "after_5_s_p99_ms": p99_ms(after),
        }
        row.need(goodput >= 0.9 * peak, f"goodput {goodput} of a peak of {peak} a second")
        few = len(judged_alone) < len(alone) / 2 or len(judged) < len(good) / 2
        row.need(not few, "the machine held up too many calls to say what their p99 is")
        row.need(p99_ms(judged) <= allowed_ms, f"accepted p99 {p99_ms(judged)} ms, allowed {allowed_ms:g}")
        row.need(outcomes(calls).keys() <= {OK, "RESOURCE_EXHAUSTED"}, f"calls ended as {outcomes(calls)}")
        row.need(not failed(high), f"{failed(high)} calls of the high tier failed")
        row.need(not failed(after) and p99_ms(after) <= allowed_ms, "it was not normal 5 s after")
    return row


async def _goodput(load: Load, rate: float, seconds: float) -> float:
    started = time.monotonic()
    calls = await load.run(rate, seconds)
    return round((len(calls) - failed(calls)) / (time.monotonic() - started), 1)


async def _not_ready(stage: Stage) -> bool:
    return await stage.ready() == 503
