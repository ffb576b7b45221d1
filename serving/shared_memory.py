"""The shared memory of Triton's python stubs, which a server that is killed leaves behind."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SHARED_MEMORY = Path("/dev/shm")
_REGION = re.compile(r"tidegate_(\d+)_(\d+)_[0-9a-f]{8}_.")


@dataclass(frozen=True, slots=True)
class RegionPrefix:
    """The start of the names of one server's regions; it says which process owns them."""

    text: str

    @classmethod
    def of_this_process(cls) -> Self:
        """A prefix that no other server has."""
        pid = os.getpid()
        return cls(f"tidegate_{pid}_{_started_at(pid)}_{secrets.token_hex(4)}_")

    def remove_regions(self) -> int:
        """Delete the regions; returns how many there were."""
        return sum(_remove(path) for path in SHARED_MEMORY.iterdir() if path.name.startswith(self.text))


def remove_orphaned_regions() -> int:
    """Delete the regions whose owner is dead; returns how many there were."""
    removed = 0
    for path in SHARED_MEMORY.iterdir():
        match = _REGION.match(path.name)
        # The start time tells an owner from a later process that was given its number.
        if match and _started_at(int(match[1])) != int(match[2]):
            removed += _remove(path)
    return removed


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, which may hold spaces; the start time is the 22nd.
    return int(stat.rpartition(")")[2].split()[19])
