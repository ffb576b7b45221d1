"""The workflows, by their own tools."""

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_MAKE = re.compile(r"\bmake ([a-z][\w./-]*)")


def _jobs(path: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return jobs


def test_workflows_have_no_weakness_that_is_known() -> None:
    command = [str(_SCRIPTS / "zizmor"), "--offline", "--no-progress", "--pedantic", str(ROOT / ".github")]
    audited = subprocess.run(command, capture_output=True, text=True, check=False)
    assert audited.returncode == 0, audited.stdout + audited.stderr


@pytest.mark.parametrize(
    ("schema", "files"), [("github-workflows", WORKFLOWS), ("dependabot", [ROOT / ".github" / "dependabot.yml"])]
)
def test_files_fit_githubs_schema(schema: str, files: list[Path]) -> None:
    command = [str(_SCRIPTS / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_named_and_jobs_may_do_little(path: Path) -> None:
    text = path.read_text()
    for used in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    assert yaml.safe_load(text)["permissions"] == {}
    for name, job in _jobs(path).items():
        assert "permissions" in job and job["timeout-minutes"] <= 90, name


def test_every_python_that_is_supported_is_tested() -> None:
    tested = _jobs(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]["python"]
    requires = re.search(r'requires-python = ">=(3\.\d+),<(3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert requires is not None
    oldest, after = (int(version.partition(".")[2]) for version in requires.groups())
    assert tested == [f"3.{minor}" for minor in range(oldest, after)]


def test_every_image_is_built_scanned_and_released() -> None:
    images = {path.name.removesuffix(".Dockerfile") for path in (ROOT / "docker").glob("*.Dockerfile")}
    for workflow, job in (("images.yml", "image"), ("release.yml", "images")):
        matrix = _jobs(ROOT / ".github" / "workflows" / workflow)[job]["strategy"]["matrix"]
        assert set(matrix["image"]) == images


def test_every_make_target_used_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w./-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {target for path in WORKFLOWS for target in _MAKE.findall(path.read_text())}
    assert {"lint", "docs"} <= used <= targets
