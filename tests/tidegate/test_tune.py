"""`tidegate tune` with a real Triton behind a real gateway."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from contract.manifest import Manifest
from contract.model_config import from_pbtxt, tuning_of
from contract.repository import ModelRepository
from contract.tuning import Tuning
from export.locations import open_store
from export.versions import Versions, not_running
from tests.export.test_versions import TUNED
from tests.publishable import Publishable
from tests.running import ROOT, tidegate

# Lone requests wait so long that every other tuning is several times better, on whatever machine.
SLOW = Tuning(queue_delay_us=400_000, instances=2)
_OPTIONS = ("--slo", "p50=100ms,errors=50%", "--rate", "40", "--duration", "0.15")


@pytest.fixture
def slow(digits: Publishable, tmp_path: Path) -> ModelRepository:
    """The digits, run badly."""
    digits.publish(tmp_path / "models")
    versions = Versions(open_store(tmp_path / "models"), "digits")
    versions.tune(1, "digits", TUNED.model_copy(update={"tuning": SLOW}), not_running)
    return ModelRepository(tmp_path / "models")


@pytest.fixture
def environment(slow: ModelRepository, tmp_path: Path) -> Mapping[str, str]:
    return {"TIDEGATE_MODEL_REPOSITORY": str(slow.root), "TIDEGATE_STATE_DIR": str(tmp_path / "state")}


def test_what_wins_is_in_config_and_manifest(
    slow: ModelRepository, environment: Mapping[str, str], tmp_path: Path
) -> None:
    encoded = slow.config("digits_encoded").read_bytes()
    ended = tidegate("tune", "digits", *_OPTIONS, "--budget", "0.1", environment=environment)
    assert ended.returncode == 0, ended.stderr
    manifest = Manifest.read(slow.manifest("digits", 1))
    manifest.check(slow.root)
    tuned = manifest.tuned["digits"]
    assert tuning_of(from_pbtxt(slow.config("digits").read_text())) == tuned.tuning != SLOW
    assert min(tuned.after) > max(tuned.before) and len(tuned.after) == len(tuned.before) == 3
    assert tuned.slo == "p50=100ms,errors=50%" and tuned.machine.cores >= 1
    assert slow.config("digits_encoded").read_bytes() == encoded
    document = json.loads((tmp_path / "state" / "tune" / "digits.json").read_text())
    assert document["winner"] == tuned.tuning.model_dump() and document["before"] == SLOW.model_dump()
    # What is there and at least one other were tried, and each three times more, in two runs.
    assert len(document["runs"]) >= 16 and all(run["rate"] == 40 for run in document["runs"])
    report = (tmp_path / "state" / "tune" / "digits.html").read_text()
    assert '<figure id="runs"><svg' in report and " src=" not in report
    assert f"{tmp_path}/state/tune/digits.html" in ended.stdout


def test_ctrl_c_leaves_the_model_as_it_was(slow: ModelRepository, environment: Mapping[str, str]) -> None:
    before = {path: path.read_bytes() for path in slow.root.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "tidegate", "tune", "digits", *_OPTIONS, "--budget", "600"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        # It is ignored where the tests were started in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    # The first run is over: the copy is served, and the search goes on.
    assert any("held" in line for line in process.stderr)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    with process:
        assert process.wait(60) != 0
    assert children and not [child for child in children if child.is_running()]
    assert {path: path.read_bytes() for path in slow.root.rglob("*") if path.is_file()} == before


def test_what_cannot_be_tuned_is_refused_in_one_line(environment: Mapping[str, str]) -> None:
    unknown = tidegate("tune", "cats", *_OPTIONS, environment=environment)
    assert unknown.returncode == 2 and "cats has no live version with a manifest" in unknown.stderr
    wrong = tidegate("tune", "digits", "--slo", "fast", environment=environment)
    assert wrong.returncode == 2 and "'fast' is neither like p99=50ms" in wrong.stderr
