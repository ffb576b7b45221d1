"""Where the workers' figures lie: a file a worker, which its successor goes on with."""

import os
from pathlib import Path

from prometheus_client import values


def use_files(metrics_dir: Path, worker: int) -> None:
    """Keep this process's figures in files of its worker number; called before any instrument is made.

    prometheus_client names the files by process id, so that every restart would add some; a number keeps them few, and a
    restarted worker's counters go on from where they were.
    """
    metrics_dir.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_dir)  # The library takes it from nowhere else.
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]  # Untyped library.
