"""Writes that survive a crash of the machine: either wholly there or not at all."""

import os
import shutil
from pathlib import Path
from uuid import uuid4


def write(path: Path, data: bytes) -> None:
    """Write a file and have the disk confirm it; not atomic."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, path: Path) -> None:
    """Copy a file's bytes and have the disk confirm them; not atomic."""
    with source.open("rb") as read, path.open("wb") as written:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another in one step, so that a reader sees the old or the new."""
    staged = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        write(staged, data)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the disk confirm which names a directory holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
