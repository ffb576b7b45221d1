"""The directory that Triton reads backends from."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from serving.backend_directory import BACKENDS, lay_out_backends
from serving.distribution import find_distribution

DISTRIBUTION = find_distribution()


def test_all_backends_are_copies(tmp_path: Path) -> None:
    directory = lay_out_backends(DISTRIBUTION, tmp_path / "backends")
    assert {path.name for path in directory.iterdir()} == {"python", *BACKENDS}
    assert not any(path.is_symlink() for path in directory.rglob("*"))
    assert os.access(directory / "python" / "triton_python_backend_stub", os.X_OK)


def test_servers_that_start_at_once_share_one_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        directories = set(pool.map(lambda _: lay_out_backends(DISTRIBUTION, tmp_path), range(16)))
    assert list(tmp_path.iterdir()) == list(directories)


def test_another_stub_makes_another_directory(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_bytes(b"another")
    first = lay_out_backends(DISTRIBUTION, tmp_path / "backends")
    second = lay_out_backends(replace(DISTRIBUTION, stub=stub), tmp_path / "backends")
    assert first != second
    assert (second / "python" / stub.name).read_bytes() == b"another"
