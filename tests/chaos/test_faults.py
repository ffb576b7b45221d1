"""The short form of `make chaos`: the faults whose outcome no figure of time decides, one after the other on one pair of Tritons."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos import cancels, gateways, models, replicas, report, rollouts, stateful
from tests.chaos.idle import idle
from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged, until

# What these rows say about time is for the report; here only what was lost, or answered wrong, decides.
_TIMINGS = ("p99", "slowest refusal", "another served after", "was ejected after", "slower", "followed after")


def _check(row: Row) -> None:
    lost = [what for what in row.broken if not any(timing in what for timing in _TIMINGS)]
    assert not lost, (lost, row.figures)


def _write(repository: Path) -> None:
    stateful.write(repository)
    models.write_work(repository, {1: "none", 2: "none", 4: "failing"})


@pytest.fixture(scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    # A replica that comes back has its share at once, so that each test finds both in use.
    settings = {"WORKERS": "2", "UPSTREAM__SLOW_START_S": "0", **stateful.SETTINGS}
    async with staged(tmp_path_factory.mktemp("chaos"), _write, **settings) as stage:
        yield stage


@pytest.fixture
async def stage(started: Stage) -> Stage:
    """Both replicas take calls again, whatever a test before did."""
    assert await until(lambda: started.metric_is("tidegate_replica_up", 2), 60) is not None
    return started


async def test_a_canary_that_fails_is_rolled_back_and_fails_no_others_calls(stage: Stage) -> None:
    with idle() as control:
        _check(await rollouts.bad_canary(stage, "failing", 5, control, before_s=1, percent=50))


async def test_versions_are_swapped_without_a_failed_call(stage: Stage) -> None:
    _check(await rollouts.swapped(stage, 1))


async def test_a_worker_that_is_told_to_end_answers_what_it_has(stage: Stage) -> None:
    _check(await gateways.worker_ended(stage, signal.SIGTERM, 4))


async def test_a_killed_replica_loses_no_call(stage: Stage) -> None:
    _check(await replicas.killed(stage, 4, "one replica", before_s=1))


async def test_sequences_and_streams_end_with_their_replica_and_no_others(stage: Stage) -> None:
    _check(await stateful.broken_off(stage, "SIGKILL"))


async def test_who_cancels_ends_what_it_caused_wherever_it_is(tmp_path: Path) -> None:
    with idle() as control:
        _check(await cancels.cancelled(tmp_path, 5, control))


def test_the_report_says_what_held_and_keeps_the_rows_of_before(tmp_path: Path) -> None:
    page, figures = tmp_path / "reliability.md", tmp_path / "build" / "chaos.json"
    good, bad = Row("a", "b", figures={"failed": 0}), Row("c", "d", broken=["3 calls failed"])
    report.write({"bad": bad}, ["good", "bad"], figures, page)
    report.write({"good": good}, ["good", "bad"], figures, page)
    lines = page.read_text().splitlines()
    assert lines[-2:] == ["| `good` | a | b | yes | failed 0 |", "| `bad` | c | d | **no**: 3 calls failed |  |"]
    found = json.loads(figures.read_text())
    assert {name: row["holds"] for name, row in found.items()} == {"good": True, "bad": False}
    assert found["good"]["failed"] == 0
    figures.unlink()
    report.write({}, ["good", "bad"], figures, page)
    assert json.loads(figures.read_text()) == found
