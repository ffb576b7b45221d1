"""Where the workers' figures lie: files of a worker's number, which its successor goes on with."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import multiprocess, values
from prometheus_client.mmap_dict import MmapedDict

_STARTED = "tidegate_calls_started_total"
_LOST = "tidegate_calls_lost_total"
_ENDED = "tidegate_stage_duration_seconds_bucket"
_OF_TENANTS = "tidegate_tenant_calls_total"
_OF_KEYS = "tidegate_key_calls_total"


def use_files(metrics_dir: Path, worker: int) -> None:
    """Keep this process's figures in files of its worker number; called before any instrument is made.

    prometheus_client names the files by process id, so that every restart would add some; a number keeps them few, and a
    restarted worker's counters go on from where they were.
    """
    metrics_dir.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_dir)  # The library takes it from nowhere else.
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]  # Untyped library.


def forget_gauges(metrics_dir: Path, worker: int) -> None:
    """A worker is dead: what it was doing is done no more. What it counted stays."""
    multiprocess.mark_process_dead(worker, str(metrics_dir))  # type: ignore[no-untyped-call]  # Untyped library.


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What the files hold that a worker goes on with.

    Attributes:
        lost: Calls that were begun, did not end, and are not counted as lost yet.
        tenants: Those that have labels of their own, as have `keys`.
    """

    lost: int = 0
    tenants: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


def predecessor(metrics_dir: Path, worker: int) -> Predecessor:
    """What there was before this process."""
    lost = 0.0
    tenants, keys = set(), set()
    for path in (metrics_dir / f"counter_{worker}.db", metrics_dir / f"histogram_{worker}.db"):
        if not path.exists():
            continue
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            _, name, labels, _ = json.loads(key)
            if name == _STARTED:
                lost += value
            elif name == _LOST or (name == _ENDED and labels["stage"] == "total"):
                lost -= value
            elif name == _OF_TENANTS:
                tenants.add(labels["tenant"])
            elif name == _OF_KEYS:
                keys.add(labels["key"])
    return Predecessor(max(0, round(lost)), frozenset(tenants), frozenset(keys))
