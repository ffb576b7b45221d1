"""`make chaos`: every fault, one after the other."""

import argparse
import asyncio
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from tests.chaos import cancels, gateways, network, replicas, report, rollouts, soak, stateful
from tests.chaos.idle import Idle, idle
from tests.chaos.row import Row
from tests.running import ROOT

_Fault = Callable[[Path, Idle], Coroutine[Any, Any, Row]]


def faults(soak_s: float) -> dict[str, _Fault]:
    """By the name of their row."""
    return {
        "replica_killed": lambda d, _: replicas.killed(d, 20, "one replica"),
        "replica_terminated": lambda d, _: replicas.killed(d, 20, "one replica, in order"),
        "stub_killed": lambda d, _: replicas.killed(d, 20, "a Python backend stub"),
        "replica_stopped": lambda d, _: replicas.held_up(d, 20, 16),
        "all_replicas_down": lambda d, _: replicas.all_away(d),
        "versions_swapped": lambda d, _: rollouts.swapped(d, 20),
        "canary_wrong": lambda d, control: rollouts.bad_canary(d, "wrong", 25, control),
        "canary_slow": lambda d, control: rollouts.bad_canary(d, "slow", 25, control),
        "canary_failing": lambda d, control: rollouts.bad_canary(d, "failing", 25, control),
        "worker_terminated": lambda d, _: gateways.worker_ended(d, signal.SIGTERM, 12),
        "worker_killed": lambda d, _: gateways.worker_ended(d, signal.SIGKILL, 12),
        "all_terminated": lambda d, _: gateways.stopped_altogether(d),
        "overload_2x": lambda d, control: gateways.overloaded(d, 2, 60, control),
        "overload_5x": lambda d, control: gateways.overloaded(d, 5, 60, control),
        "cancelled": lambda d, control: cancels.cancelled(d, 100, control),
        "retry_storm": lambda d, _: replicas.refused(d, 20),
        "bad_network": lambda d, _: network.bad_network(d, 12),
        "replica_killed_stateful": lambda d, _: stateful.broken_off(d, "SIGKILL"),
        "replica_stopped_stateful": lambda d, _: stateful.broken_off(d, "SIGSTOP"),
        "worker_terminated_stateful": lambda d, _: stateful.handed_over(d),
        "soak": lambda d, _: soak.soaked(d, soak_s),
    }


def main() -> None:
    """Run the faults that are named, or all; the status is 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows; all where none is given")
    parser.add_argument("--soak-s", type=float, default=1_800, help="how long the soak is")
    arguments = parser.parse_args()
    known = faults(arguments.soak_s)
    if unknown := set(arguments.rows) - known.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rows: dict[str, Row] = {}
    for name in arguments.rows or known:
        row = rows[name] = _do(known[name])
        report.write({name: row}, list(known), ROOT / "build" / "chaos.json", ROOT / "docs" / "reliability.md")
        print(f"{name}: {'holds' if row.holds else row.broken} {row.figures}", flush=True)
    raise SystemExit(any(not row.holds for row in rows.values()))


def _do(fault: _Fault) -> Row:
    """One fault, and what the machine did to a process that did nothing meanwhile."""
    load, started = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as directory, idle() as control:
        row = asyncio.run(fault(Path(directory), control))
        row.figures["row_took_s"] = round(time.monotonic() - started)
        row.figures["load_average_before"] = round(load, 1)
        row.figures["idle_process_late_p99_ms"] = control.quantile_ms(0.99)
        row.figures["idle_process_late_worst_ms"] = control.quantile_ms(1)
    return row


if __name__ == "__main__":
    main()
