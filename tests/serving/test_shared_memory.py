"""Regions in /dev/shm are removed with their owner, and only then."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import shared_memory
from serving.shared_memory import RegionPrefix, remove_orphaned_regions


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    yield tmp_path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_only_the_prefixs_own_regions_are_removed(directory: Path) -> None:
    own, other = RegionPrefix.of_this_process(), RegionPrefix.of_this_process()
    for prefix in (own, other):
        (directory / f"{prefix.text}region").touch()
    assert own.remove_regions() == 1
    assert names(directory) == {f"{other.text}region"}


def test_regions_of_the_dead_are_removed_and_those_of_the_living_are_kept(directory: Path) -> None:
    living = f"{RegionPrefix.of_this_process().text}region"
    # A process of this number lives, but it is not the one that owned the region.
    reused = f"tidegate_{os.getpid()}_1_0123abcd_region"
    dead = "tidegate_4194999_17_0123abcd_region"
    foreign = "triton_python_backend_shm_region_1"
    for name in (living, reused, dead, foreign):
        (directory / name).touch()
    assert remove_orphaned_regions() == 2
    assert names(directory) == {living, foreign}
