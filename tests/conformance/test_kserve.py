"""KServe's own REST and gRPC clients, against Triton and against the gateway."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import kserve_calls
from tests.conformance.conftest import Endpoint
from tests.running import ROOT

_PINS = ROOT / "requirements" / "kserve.txt"


@pytest.fixture(scope="module")
def packages() -> Path:
    """Where KServe's clients are, installed once for each version of their pins."""
    directory = ROOT / ".pipeline" / f"kserve-{hashlib.sha256(_PINS.read_bytes()).hexdigest()[:12]}"
    if not directory.exists():
        staging = directory.with_suffix(".new")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade"]
        subprocess.run([*install, "--target", str(staging), "--requirement", str(_PINS)], check=True)
        staging.rename(directory)
    return directory


def _found(packages: Path, endpoint: Endpoint) -> dict[str, Any]:
    path = os.pathsep.join([str(packages), *sys.path])
    command = [sys.executable, kserve_calls.__file__, endpoint.http, endpoint.grpc]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_kserves_clients_see_what_they_see_of_triton(packages: Path, bare: Endpoint, gateway: Endpoint) -> None:
    expected, found = _found(packages, bare), _found(packages, gateway)
    for data_type in kserve_calls.DATA_TYPES:
        values = kserve_calls.readable(kserve_calls.values(data_type))
        assert found[f"rest echo in_{data_type} binary"] == ["7", {f"out_{data_type}": values}]
        assert found[f"grpc echo in_{data_type} binary"] == ["7", {f"out_{data_type}": values}]
    assert found["rest sum a b binary"] == ["7", {"sum": [1, 2, 3, 4], "difference": [-1, 0, 1, 2]}]
    # KServe's health has a body, Triton's has none.
    for name in ("rest live", "rest ready"):
        assert (expected.pop(name), found.pop(name)) == ("JSONDecodeError", True)
    assert found == expected
