"""What a user installs: the sdist, the wheel made of it, and `tidegate` in a directory that holds nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import ROOT

_START_S = 120.0
_STOP_S = 60.0
_BUILD = "import sys; from poetry.core.masonry import api; print(getattr(api, sys.argv[1])(sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in a virtual environment of its own, and an empty directory to run it in."""

    python: Path
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """Without a word of this checkout."""
        ours = {name for name in os.environ if name.startswith("TIDEGATE_")} | {"PYTHONPATH", "VIRTUAL_ENV"}
        free = {f"TIDEGATE_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
        return {name: value for name, value in os.environ.items() if name not in ours} | free

    def run(self, *command: str) -> str:
        """Its output; a failure fails the test."""
        ended = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def tidegate(self, *arguments: str) -> str:
        """The output of a command."""
        return self.run(str(self.python.with_name("tidegate")), *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("distribution")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    _pip("install", "--target", str(root / "tools"), *requires)
    tools = {**os.environ, "PYTHONPATH": str(root / "tools")}

    def build(step: str, source: Path) -> Path:
        command = [sys.executable, "-c", _BUILD, step, str(root)]
        return root / subprocess.check_output(command, cwd=source, env=tools, text=True).strip()

    sdist = build("build_sdist", ROOT)
    with tarfile.open(sdist) as archive:
        archive.extractall(root / "source", filter="data")
    (source,) = (root / "source").iterdir()
    wheel = build("build_wheel", source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    python = root / "venv" / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # The dependencies of this environment, without the .pth file by which it finds this checkout.
    (packages,) = (root / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    directory = root / "empty"
    directory.mkdir()
    return Installed(python, directory)


@pytest.fixture(scope="module")
def banner(installed: Installed) -> Iterator[str]:
    """What `tidegate up` said, in the empty directory; it serves."""
    with (installed.directory / "log").open("wb") as log, (installed.directory / "banner").open("wb") as banner:
        process = subprocess.Popen(
            [installed.python.with_name("tidegate"), "up"],
            cwd=installed.directory,
            env=installed.environment,
            stdout=banner,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + _START_S
        while not (installed.directory / ".tidegate" / "endpoints.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (installed.directory / "log").read_text()
            time.sleep(0.05)
        yield (installed.directory / "banner").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def test_the_installed_packages_are_not_those_of_the_checkout(installed: Installed) -> None:
    for package in ("contract", "export", "gateway", "serving", "tidegate", "training"):
        place = installed.run(str(installed.python), "-c", f"import {package}; print({package}.__path__[0])")
        assert Path(place.strip()).is_relative_to(installed.python.parent.parent)


def test_the_demo_model_answers_outside_the_checkout(installed: Installed, banner: str) -> None:
    assert "Tidegate serves digits, digits_encoded from" in banner
    pasted = re.search(r"^curl .*$", banner, re.MULTILINE)
    assert pasted is not None
    answer = json.loads(installed.run("bash", "-c", pasted.group()))
    assert (answer["predictions"][0]["label"], answer["version"]) == ("7", "1")
    assert " digits " in f" {installed.tidegate('models', 'list')} ".replace("\n", " ")


def test_the_doctor_finds_nothing_wrong(installed: Installed) -> None:
    assert "✗" not in installed.tidegate("doctor")


def test_the_version_is_the_projects(installed: Installed) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert installed.tidegate("--version") == f"tidegate {version}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(installed: Installed, shell: str) -> None:
    # Typer asks the process above which shell it is; this names it.
    environment = {**installed.environment, "_TIDEGATE_COMPLETE": f"source_{shell}"}
    script = subprocess.check_output(
        [installed.python.with_name("tidegate")], cwd=installed.directory, env=environment, text=True
    )
    assert "_TIDEGATE_COMPLETE" in script
    asked = {"COMP_WORDS": "tidegate doc", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "tidegate doc"}
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    offered = subprocess.check_output(
        [installed.python.with_name("tidegate")],
        cwd=installed.directory,
        env={**environment, **asked, **fish, "_TIDEGATE_COMPLETE": f"complete_{shell}"},
        text=True,
    )
    assert "doctor" in offered and "tenants" not in offered
