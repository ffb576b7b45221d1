"""The Dockerfiles and the compose file, by their own tools."""

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_WITHOUT_ENGINES = re.compile(r"^    && sed '(.*?)'|^RUN sed '(.*?)'", re.MULTILINE)


def compose(environment: dict[str, str]) -> dict[str, Any]:
    """What Docker Compose makes of the file."""
    command = [str(_SCRIPTS / "docker-compose"), "--file", str(DOCKER / "compose.yaml"), "--env-file", os.devnull]
    ended = subprocess.run(
        [*command, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    configured: dict[str, Any] = json.loads(ended.stdout)
    return configured


def secrets() -> dict[str, str]:
    """A value for each variable of the example that has none."""
    names = re.findall(r"^(\w+)=$", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    return {"S3_ACCESS_KEY": "tidegate", **{name: f"secret-{name.lower()}".ljust(40, "0") for name in names}}


def test_the_dockerfiles_have_no_lint() -> None:
    assert len(DOCKERFILES) == 4
    linted = subprocess.run([_SCRIPTS / "hadolint", *DOCKERFILES], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_user_with_a_number_and_says_whether_it_is_well(path: Path) -> None:
    last_stage = path.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)
    assert "\nHEALTHCHECK " in last_stage


@pytest.mark.parametrize("name", ["gateway", "triton"])
def test_no_engine_is_installed_where_none_is_used(name: str) -> None:
    found = _WITHOUT_ENGINES.search((DOCKER / f"{name}.Dockerfile").read_text())
    assert found is not None
    script = found[1] or found[2]
    kept = subprocess.check_output(["sed", script, ROOT / "requirements" / "serve.txt"], text=True)
    packages = set(re.findall(r"^([a-z0-9-]+)", kept, re.MULTILINE))
    assert {"grpcio", "fastapi", "sqlalchemy", "pillow"} <= packages
    assert not {"nvidia-pytriton", "onnxruntime", "openvino", "torch"} & packages
    # Every requirement that is left still has a hash, or pip would refuse all.
    assert all("--hash=" in block for block in re.split(r"\n(?=\S)", kept) if "==" in block.partition("\n")[0])


def test_compose_takes_no_secret_from_the_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == secrets().keys()
    assert not re.search(r"(?i)(password|secret_access_key|requirepass)\S*:\s*[\w-]+$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("profiles", "triton"), [("cpu", "triton-cpu"), ("gpu", "triton-gpu"), ("cpu,load", "triton-cpu")]
)
def test_compose_runs_one_triton_that_the_gateway_waits_for(profiles: str, triton: str) -> None:
    services = compose({**secrets(), "COMPOSE_PROFILES": profiles})["services"]
    assert [name for name in services if name.startswith("triton-")] == [triton]
    assert ("locust" in services) == ("load" in profiles)
    assert services["gateway"]["depends_on"][triton]["condition"] == "service_healthy"
    assert "triton" in services[triton]["networks"]["back"]["aliases"]
    assert "front" not in services[triton]["networks"] and "ports" not in services[triton]


def test_compose_has_ours_read_only_without_capabilities_and_lets_in_this_machine_alone() -> None:
    services = compose({**secrets(), "COMPOSE_PROFILES": "cpu,gpu,load"})["services"]
    for name, service in services.items():
        if service["image"].startswith("tidegate/"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        else:
            assert re.search(r":[\w.-]*\d[\w.-]*$", service["image"]), f"{name}: no version"
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


def test_make_writes_an_environment_with_every_secret_and_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    for name in ("Makefile", "docker/.env.example"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["make", "--quiet", "docker/.env"], cwd=tmp_path, check=True)
    written = tmp_path / "docker" / ".env"
    values = dict(re.findall(r"^(\w+)=(.*)$", written.read_text(), re.MULTILINE))
    assert all(len(values[name]) >= 8 for name in secrets())
    assert len({values[name] for name in secrets()}) == len(secrets())
    assert written.stat().st_mode & 0o777 == 0o600
    subprocess.run(["git", "check-ignore", "--quiet", "docker/.env"], cwd=ROOT, check=True)
