"""Faults of Triton: killed, stopped, all away, and its model's processes killed."""

import asyncio
import signal
import time
from pathlib import Path

import httpx

from tests.chaos import models
from tests.chaos.load import OK, Call, Load, failed, normal_after_s, outcomes, p99_ms
from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged, stopped, until

# p99 is back when it is no more than this many times what it was.
_NORMAL = 2.0


def write(repository: Path) -> None:
    """The model `work`, one good version."""
    models.write_work(repository, {1: "none"})


async def killed(where: Path | Stage, seconds: float, victim: str, before_s: float = 5) -> Row:
    """SIGKILL of a tritonserver, or of one process of a model; or SIGTERM of a tritonserver, as when it is upgraded."""
    ending = signal.SIGTERM if victim == "one replica, in order" else signal.SIGKILL
    row = Row(f"{ending.name} of {victim}", "0 failed requests; p99 back within 10 s")
    async with staged(where, write) as stage, Load(stage.server.grpc, stage.key) as load:
        before = await load.run(load.capacity / 2, before_s)
        allowed_ms = p99_ms(before) * _NORMAL
        running = asyncio.create_task(load.run(load.capacity / 2, seconds))
        await asyncio.sleep(1)
        triton = stage.tritons()[1]
        at = time.monotonic()
        (stage.stubs(triton, "work")[0] if "stub" in victim else triton).send_signal(ending)
        calls = await running
        after = [call for call in calls if call.due >= at]
        normal = normal_after_s(after, at, allowed_ms)
        row.figures = {
            "calls": len(calls),
            "failed": failed(calls),
            "outcomes": outcomes(calls),
            "p99_before_ms": p99_ms(before),
            "worst_ms": round(max(call.seconds for call in after) * 1_000, 1),
            "normal_after_s": normal,
            "retried": await stage.metric("tidegate_retries_total", outcome="ok"),
        }
        row.need(not failed(calls), f"{failed(calls)} calls failed")
        row.need(normal is not None and normal <= 10, f"p99 was not back within 10 s but after {normal} s")
    return row


async def held_up(directory: Path, stop_s: float, after_s: float) -> Row:
    """SIGSTOP of a tritonserver for a while."""
    row = Row(
        f"SIGSTOP of one replica for {stop_s:g} s",
        "no request past its deadline; ejected within 3 s; readmitted gradually",
    )
    async with staged(directory, write) as stage, Load(stage.server.grpc, stage.key, deadline_s=8) as load:
        before = await load.run(load.capacity / 2, 3)
        running = asyncio.create_task(load.run(load.capacity / 2, stop_s + after_s + 1))
        await asyncio.sleep(1)
        triton = stage.tritons()[1]
        at = time.monotonic()
        with stopped(triton):
            # Not by the metrics, which wait for those of the Triton that is stopped.
            ejected = await until(lambda: "replica is out" in stage.server.log, stop_s)
            await asyncio.sleep(max(0.0, at + stop_s - time.monotonic()))
        back = await until(lambda: stage.metric_is("tidegate_replica_up", 1, replica="1"), 10)
        shares = [await _share(stage, 1, 1.0) for _ in range(int(after_s) - 2)]
        calls = await running
        late = [call for call in calls if call.seconds > load.deadline_s + 0.1]
        row.figures = {
            "calls": len(calls),
            "failed": failed(calls),
            "outcomes": outcomes(calls),
            "late": len(late),
            "worst_ms": round(max(call.seconds for call in calls) * 1_000, 1),
            "p99_before_ms": p99_ms(before),
            "ejected_after_s": ejected,
            "back_after_s": back,
            "share_by_second_after_it_is_back": shares,
        }
        row.need(not late, f"{len(late)} calls ended past their deadline")
        row.need(ejected is not None and ejected <= 3, f"it was ejected after {ejected} s")
        row.need(back is not None, "it was not readmitted")
        row.need(bool(shares) and shares[0] < 0.3 and max(shares) > 0.3, f"its share rose as {shares}")
    return row


async def all_away(directory: Path) -> Row:
    """SIGKILL of every tritonserver, which are started again."""
    row = Row("all replicas down", "UNAVAILABLE in < 100 ms, not-ready; recovers alone")
    async with staged(directory, write) as stage, Load(stage.server.grpc, stage.key) as load:
        await load.run(load.capacity / 2, 2)
        running = asyncio.create_task(load.run(load.capacity / 4, 20))
        await asyncio.sleep(1)
        at = time.monotonic()
        for triton in stage.tritons():
            triton.kill()
        unready = await until(lambda: _status(stage, 503), 5)
        ready = await until(lambda: _status(stage, 200), 60)
        calls = await running
        down = [call for call in calls if call.due > at + 0.1 and call.outcome != OK]
        first_good = min((call.due for call in calls if call.due > at + 0.1 and call.outcome == OK), default=None)
        after = [call for call in calls if first_good is not None and call.due > first_good + 3]
        slowest_ms = round(max((call.seconds for call in down), default=0.0) * 1_000, 1)
        row.figures = {
            "calls": len(calls),
            "outcomes": outcomes(calls),
            "slowest_refusal_ms": slowest_ms,
            "not_ready_after_s": unready,
            "served_again_after_s": None if first_good is None else round(first_good - at, 2),
            "ready_again_after_s": ready,
            "failed_once_served_again": failed(after),
        }
        row.need({call.outcome for call in down} <= {"UNAVAILABLE"}, f"calls ended as {outcomes(down)}")
        row.need(bool(down) and slowest_ms < 100, f"the slowest refusal took {slowest_ms} ms")
        row.need(unready is not None and ready is not None, "readiness did not follow")
        row.need(bool(after) and not failed(after), "it did not recover")
    return row


async def refused(directory: Path, seconds: float) -> Row:
    """Clients that try again at once, against a model that refuses."""
    row = Row("retry storm (clients that retry at once)", "upstream attempts ≤ 1.2 × requests")
    async with staged(directory, models.write_refusing) as stage:
        async with Load(stage.server.grpc, stage.key, model="refusing", calibration_s=0) as load:
            ends = time.monotonic() + seconds

            async def client(number: int) -> None:
                while time.monotonic() < ends:
                    call = Call(time.monotonic(), "standard")
                    load.calls.append(call)
                    await load.call(call, number)

            await asyncio.gather(*(client(number) for number in range(16)))
            attempts = models.refusals(stage.repository)
            requests = len(load.calls)
            row.figures = {
                "requests": requests,
                "upstream_attempts": attempts,
                "ratio": round(attempts / requests, 3),
                "outcomes": outcomes(load.calls),
            }
            # The few that are always allowed.
            row.need(attempts <= 1.2 * requests + 3, f"{attempts} attempts for {requests} requests")
            row.need(attempts > requests / 2, "the requests did not reach Triton")
    return row


async def _status(stage: Stage, status: int) -> bool:
    try:
        return await stage.ready() == status
    except httpx.HTTPError:
        return False


async def _share(stage: Stage, replica: int, seconds: float) -> float:
    """The share of the requests that a replica answers within some seconds."""
    before = [await _answers(stage, number) for number in range(2)]
    await asyncio.sleep(seconds)
    after = [await _answers(stage, number) for number in range(2)]
    answered = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return round(answered[replica] / max(1.0, sum(answered)), 2)


async def _answers(stage: Stage, replica: int) -> float:
    return await stage.metric("nv_inference_request_success", model="work", replica=str(replica))
