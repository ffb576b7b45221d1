"""What pip installs is what Poetry locked."""

import re
import tomllib

import pytest

from tests.running import ROOT

_LOCK = tomllib.loads((ROOT / "poetry.lock").read_text())
_PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==(\S+)((?:.*\n    --hash=\S+)+)", re.MULTILINE)


@pytest.mark.parametrize("name", ["serve", "all", "tensorrt"])
def test_pins_and_hashes_are_those_of_the_lock(name: str) -> None:
    locked = {
        (package["name"].lower(), package["version"]): {file["hash"] for file in package["files"]}
        for package in _LOCK["package"]
    }
    pins = _PIN.findall((ROOT / "requirements" / f"{name}.txt").read_text().replace(" \\\n", "\n"))
    assert len(pins) > 20
    for package, version, hashes in pins:
        assert set(re.findall(r"--hash=(\S+)", hashes)) == locked[package, version], package


def test_serving_installs_every_dependency_and_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[ \[(]", dependency)[0].lower() for dependency in project["dependencies"]}
    pinned = {
        package
        for package, _, _ in _PIN.findall((ROOT / "requirements" / "serve.txt").read_text().replace(" \\\n", "\n"))
    }
    assert wanted <= pinned
    assert not {"torch", "lightning", "mlflow"} & pinned
