"""Every command of the documentation is run as it stands, but for its length."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Server

_PAGE = (ROOT / "docs" / "load-testing.md").read_text()
_COMMANDS = re.findall(r"^```sh\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
_SHORT = {"DURATION_S": "0.4", "WARMUP_S": "0.1", "MAX_RATE": "50", "DEADLINE_S": "60"}
# A search stretches its runs for its percentile, to ten times this.
_SEARCH = {**_SHORT, "DURATION_S": "0.05"}


@pytest.mark.parametrize("command", _COMMANDS, ids=[command.split(" -")[0].strip() for command in _COMMANDS])
def test_a_documented_command_works(command: str, server: Server, tmp_path: Path) -> None:
    tenants = re.sub("tg_…", server.key, re.findall(r"^```json\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)[0])
    (tmp_path / "tenants.json").write_text(tenants)
    bin_directory = Path(sys.executable).parent
    for shown, here in {
        "make load": f"make --old-file={bin_directory.parent}/.all VENV={bin_directory.parent} load",
        ".venv/bin/": f"{bin_directory}/",
        ".tidegate/dev-key": f"{server.state_dir}/dev-key",
        "tenants.json": f"{tmp_path}/tenants.json",
        "--run-time 30s": "--run-time 3s",
    }.items():
        command = command.replace(shown, here)
    settings = {"OUT": str(tmp_path), **(_SEARCH if "--find-max" in command else _SHORT)}
    if "locust" in command:
        settings |= {"GRPC": server.grpc, "DURATION_S": "3"}
    environment = {f"TIDEGATE_LOAD_{name}": value for name, value in settings.items()}
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, **server.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "locust" in command:
        assert ended.returncode == 0, ended.stderr
        assert re.search(r"Aggregated +[1-9]\d* +0\(0.00%\)", ended.stdout + ended.stderr)
        return
    # Whether an SLO is held is not what this test is about.
    assert ended.returncode in (0, 1 if "--slo" in command else 0), ended.stderr
    for run in json.loads((tmp_path / "results.json").read_text())["runs"]:
        assert run["outcomes"] == {"ok": run["intended"]}
        assert len(run["client_cpu_s"]) == (2 if "--workers 2" in command else 1)
        assert not any("others used it" in note for note in run["notes"])
    assert (tmp_path / "report.html").exists()
