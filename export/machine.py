"""The machine that speed is measured on."""

import os
import platform
from pathlib import Path

from contract.manifest import Machine

_CPU_INFO = Path("/proc/cpuinfo")


def machine() -> Machine:
    """This one, as far as its speed depends on it."""
    return Machine(processor=_processor(), cores=len(os.sched_getaffinity(0)))


def _processor() -> str:
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
