"""What `tidegate doctor` says of a machine, and of the services a deployment leans on."""

import os
from pathlib import Path

import pytest

from tests.gateway.redis_server import free_port
from tests.gateway.redis_server import running as running_redis
from tests.running import REPOSITORY, tidegate
from tests.s3 import S3Server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ports = {f"TIDEGATE_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    return {"TIDEGATE_STATE_DIR": str(tmp_path / "state"), "TIDEGATE_MODEL_REPOSITORY": str(REPOSITORY), **ports}


def _examined(environment: dict[str, str]) -> tuple[int, dict[str, str]]:
    """The exit status, and the lines by subject."""
    ended = tidegate("doctor", environment=environment)
    lines = (line.partition(": ") for line in ended.stdout.splitlines())
    return ended.returncode, {subject: found for subject, _, found in lines}


def _nvidia_smi(directory: Path, script: str) -> str:
    """A PATH on which `nvidia-smi` is this script."""
    directory.mkdir()
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_redis_and_a_bucket_that_answer_are_well(environment: dict[str, str], s3: S3Server, tmp_path: Path) -> None:
    s3.client().create_bucket(Bucket="doctor")
    location = f"s3://{s3.endpoint}/doctor"
    with running_redis(tmp_path) as redis:
        settings = {"TIDEGATE_REDIS__URL": redis.url, "TIDEGATE_MODEL_REPOSITORY": location}
        status, found = _examined({**environment, **s3.environment, **settings})
    assert status == 0
    assert "is version" in found["✓ Redis"]
    assert found["✓ model repository"] == f"0 models in {location}"


def test_what_does_not_answer_is_named_with_its_setting_and_no_password(environment: dict[str, str]) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    status, found = _examined(
        {
            **environment,
            "TIDEGATE_REDIS__URL": f"redis://:opensesame@{nobody}/0",
            "TIDEGATE_DATABASE__URL": f"postgresql+asyncpg://tidegate:opensesame@{nobody}/tidegate",
            "TIDEGATE_MODEL_REPOSITORY": f"s3://http://{nobody}/models",
        }
    )
    assert status == 1
    for subject, setting in (
        ("Redis", "TIDEGATE_REDIS__URL"),
        ("database of keys", "TIDEGATE_DATABASE__URL"),
        ("model repository", "TIDEGATE_MODEL_REPOSITORY"),
    ):
        assert setting in found[f"✗ {subject}"]
    assert "opensesame" not in str(found)


def test_a_gpu_is_named_with_its_driver(environment: dict[str, str], tmp_path: Path) -> None:
    path = _nvidia_smi(tmp_path / "bin", "echo 'NVIDIA L4, 580.95.05, 23034 MiB'")
    assert _examined({**environment, "PATH": path})[1]["✓ GPU"].startswith("NVIDIA L4, 580.95.05")


def test_a_driver_that_fails_is_told_with_a_remedy(environment: dict[str, str], tmp_path: Path) -> None:
    path = _nvidia_smi(tmp_path / "bin", "echo 'Driver/library version mismatch'; exit 18")
    status, found = _examined({**environment, "PATH": path})
    assert status == 1
    assert "Driver/library version mismatch; load the driver" in found["✗ GPU"]


def test_a_state_directory_that_cannot_be_one_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, found = _examined({**environment, "TIDEGATE_STATE_DIR": str(tmp_path / "file" / "state")})
    assert status == 1
    assert "set TIDEGATE_STATE_DIR" in found["✗ state directory"]
