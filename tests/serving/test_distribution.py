"""Finding tritonserver."""

import ctypes
import sys
import sysconfig
from collections import namedtuple

import pytest

from serving import distribution
from serving.distribution import find_distribution
from serving.errors import DistributionMissing

Version = namedtuple("Version", ["major", "minor"])


def test_every_part_is_there() -> None:
    found = find_distribution()
    assert found.binary.is_file() and found.stub.is_file()
    assert (found.python_backend / "libtriton_python.so").is_file()
    assert all(directory.is_dir() for directory in found.library_dirs)


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "find_spec", lambda name: None)
    with pytest.raises(DistributionMissing, match="nvidia-pytriton.* is not installed"):
        find_distribution()


def test_a_python_without_a_stub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", Version(3, 99))
    with pytest.raises(DistributionMissing, match=r"no stub for Python 3\.99"):
        find_distribution()


def test_a_missing_libpython_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nowhere")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(DistributionMissing, match=r"libpython3\.\d+\.so\.1\.0, which is neither in /nowhere"):
        find_distribution()
