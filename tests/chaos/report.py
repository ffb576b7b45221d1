"""What the faults showed, for people and for machines."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import models
from tests.chaos.row import Row

_HEAD = """# Reliability

Each fault is done to real processes under steady open-loop load: `tidegate up` with two Tritons, or two Tritons, a proxy before each
and a gateway worker. Callers first ask as fast as they are answered for a moment; half of that rate is the load, where the fault is
not the load itself. `make chaos` does all of it (about 45 minutes) and writes this page, [its figures](reliability.json) and
`build/chaos.json`; `make chaos ROWS="replica_killed overload_2x"` does some, and renews their lines. `make test` has a short form, which
asserts what was lost and not what time it took.

Beside each fault a process sleeps 5 ms at a time and notes how late it awakes (`idle process late`): by so much the machine, with all that ran on it,
held up whoever wanted to run. Figures of calls that were *not held up* leave out those that were under way while that was more than 10 ms, or
for as long again afterwards; all others are of all calls. Calls beside a canary and accepted calls in an overload are judged by
those that were not held up, where these are at least half; a cancellation that was held up is made again.

Measured {dates} on {machine}, with Python {python}, grpcio {grpcio} and the Triton of nvidia-pytriton {pytriton}. Two cores can show
how a fleet behaves, and not how much it can do: the model's work is to wait {service_ms} ms, {instances} at a time in each replica,
one request a batch. Callers, gateway and Tritons share the cores.

| row | fault | must hold | holds | figures |
|---|---|---|---|---|
{rows}
"""

_Found = dict[str, dict[str, Any]]


def write(rows: Mapping[str, Row], order: list[str], json_path: Path, page: Path) -> None:
    """Write the page, its figures beside it as JSON, and a copy of these; rows that were done before and not now stay.

    Args:
        rows: By a short name.
        order: Of the names.
        json_path: Where the copy is.
    """
    kept = page.with_suffix(".json")
    found: _Found = json.loads(kept.read_text()) if kept.exists() else {}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for name, row in rows.items():
        told = {"holds": row.holds, "fault": row.fault, "must": row.must, "broken": row.broken, "measured": today}
        found[name] = {**told, **row.figures}
    found = {name: found[name] for name in order if name in found}
    json_path.parent.mkdir(parents=True, exist_ok=True)
    for path in (kept, json_path):
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    page.write_text(_text(found) + _notes(page))


def _text(found: _Found) -> str:
    dates = sorted({row["measured"] for row in found.values()})
    return _HEAD.format(
        dates=dates[0] if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}",
        machine=f"{os.cpu_count()} cores ({_processor()}), {psutil.virtual_memory().total / 2**30:.0f} GiB",
        python=platform.python_version(),
        grpcio=version("grpcio"),
        pytriton=version("nvidia-pytriton"),
        service_ms=models.SERVICE_MS,
        instances=models.INSTANCES,
        rows="\n".join(_line(name, row) for name, row in found.items()),
    )


def _notes(page: Path) -> str:
    """What people wrote below the table."""
    _, mark, notes = page.read_text().partition("\n## ") if page.exists() else ("", "", "")
    return mark + notes


def _line(name: str, row: Mapping[str, Any]) -> str:
    verdict = "yes" if row["holds"] else "**no**: " + "; ".join(row["broken"])
    told = ("holds", "fault", "must", "broken", "measured")
    figures = ", ".join(f"{key.replace('_', ' ')} {_value(row[key])}" for key in row if key not in told)
    return f"| `{name}` | {row['fault']} | {row['must']} | {verdict} | {figures} |"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_value(each)}" for name, each in value.items()) + ")"
    return str(value).replace("|", "\\|")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
