"""`tidegate triton`: Triton alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import tritonclient.grpc as triton

from contract.model_config import from_pbtxt
from contract.repository import ModelRepository
from tests.publishable import Publishable
from tests.running import ROOT
from tests.tidegate.test_models import flip_a_byte

_SERVED_S = 60.0


def _is_served(address: str, version: str) -> bool:
    with triton.InferenceServerClient(address) as client:
        deadline = time.monotonic() + _SERVED_S
        while time.monotonic() < deadline:
            if client.is_model_ready("digits", version) and client.is_model_ready("digits_encoded", version):
                return True
            time.sleep(0.05)
    return False


def test_a_version_with_a_wrong_byte_is_left_out_and_the_other_is_served(digits: Publishable, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    assert [digits.publish(repository.root) for _ in range(2)] == [1, 2]
    flip_a_byte(repository.version_dir("digits", 2) / "model.bin")
    environment = {
        "TIDEGATE_MODEL_REPOSITORY": str(repository.root),
        "TIDEGATE_STATE_DIR": str(tmp_path / "state"),
        "TIDEGATE_GRPC_PORT": "0",
        "TIDEGATE_METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "tidegate", "triton"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        events = (json.loads(line) for line in process.stderr if line.startswith("{"))
        ready = next(event for event in events if event["event"] == "triton.ready")
        refused = next(event for event in events if event["event"] == "models.version_refused")
        assert refused["version"] == "digits/2" and "digits/2/model.bin: SHA-256 is" in refused["reason"]
        assert _is_served(ready["grpc"], "1")
        for model in ("digits", "digits_encoded"):
            assert list(from_pbtxt(repository.config(model).read_text()).version_policy.specific.versions) == [1]
    finally:
        process.terminate()
        process.communicate()
