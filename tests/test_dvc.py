"""`dvc repro`, `push` and `pull` on a copy of the project, with a real S3 server for the remote."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import ManifestInvalid
from contract.manifest import Manifest
from contract.repository import ModelRepository
from export.acceptance import accept
from export.errors import VerificationFailed
from tests.running import ROOT
from tests.s3 import S3Server

BUILT = Path("build", "pipeline")
STAGES = ("data", "train", "export", "verify")
# One epoch, one format, no measurement: the stages are tested here, and not the model.
SHORTENED = {
    "max_epochs: 40": "max_epochs: 1",
    "formats: torchscript,onnx,openvino": "formats: openvino",
    "measure_s: 1": "measure_s: 0",
    "min_accuracy: 0.98": "min_accuracy: 0.0",
}

Dvc = Callable[..., str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc repro` needs of the project."""
    copy = tmp_path_factory.mktemp("dvc") / "project"
    for package in ("contract", "export", "tidegate", "training"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / ".dvc").mkdir()
    for name in (".dvc/config", ".dvcignore", "dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, copy / name)
    replace(copy / "params.yaml", SHORTENED)
    # The project's own repository is Git's; the copy is in none.
    (copy / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    return copy


@pytest.fixture(scope="module")
def dvc(project: Path, s3: S3Server) -> Dvc:
    """Runs DVC in the copy and returns what it says."""
    scripts = sysconfig.get_path("scripts")
    environment = {
        **os.environ,
        **s3.environment,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "DVC_SITE_CACHE_DIR": str(project.with_name("site")),
        "DVC_GLOBAL_CONFIG_DIR": str(project.with_name("global")),
        "TIDEGATE_TRAINING_WIDTHS": "[4]",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


@pytest.fixture(scope="module")
def built(project: Path, dvc: Dvc) -> Path:
    """The copy after its first `dvc repro`."""
    said = dvc("repro")
    assert ran(said) == STAGES, said
    return project


def ran(said: str) -> tuple[str, ...]:
    """The stages that ran, in their order."""
    return tuple(line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage"))


def replace(path: Path, texts: dict[str, str]) -> None:
    """Change a file; each text must be in it."""
    content = path.read_text()
    for old, new in texts.items():
        assert old in content, f"{path}: no {old!r}"
        content = content.replace(old, new)
    path.write_text(content)


def test_stages_end_in_a_version_and_its_accuracy(built: Path) -> None:
    repository = built / BUILT / "model_repository"
    manifest = Manifest.read(repository / "digits" / "1" / "manifest.json")
    manifest.check(repository)
    figures = json.loads((built / BUILT / "metrics.json").read_text())
    # FP32 scores differ by rounding alone, so that a tie between two labels is the most that may change.
    assert figures["accuracy"] == pytest.approx(manifest.test_accuracy, abs=1 / 360)


def test_second_run_does_nothing_and_a_changed_parameter_runs_its_own_stage(built: Path, dvc: Dvc) -> None:
    assert ran(dvc("repro")) == ()
    replace(built / "params.yaml", {"min_accuracy: 0.0": "min_accuracy: 0.01"})
    assert ran(dvc("repro")) == ("verify",)


def test_what_was_pushed_to_s3_is_pulled_where_nothing_was_built(built: Path, dvc: Dvc, s3: S3Server) -> None:
    s3.client().create_bucket(Bucket="tidegate-dvc")
    dvc("push")
    shutil.rmtree(built / BUILT)
    shutil.rmtree(built / ".dvc" / "cache")
    dvc("pull")
    repository = built / BUILT / "model_repository"
    Manifest.read(repository / "digits" / "1" / "manifest.json").check(repository)
    assert ran(dvc("repro")) == ()


def test_version_that_is_not_accurate_enough_is_refused(built: Path) -> None:
    with pytest.raises(VerificationFailed, match="digits 1: accuracy is 0.*, less than 1.0"):
        accept(ModelRepository(built / BUILT / "model_repository"), "digits", min_accuracy=1.0)


def test_version_whose_bytes_changed_is_refused(built: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(built / BUILT / "model_repository", tmp_path / "repository")
    with (repository / "digits" / "1" / "model.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestInvalid, match="model.bin: SHA-256"):
        accept(ModelRepository(repository), "digits", min_accuracy=0.0)
