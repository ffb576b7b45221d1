"""What the README shows is what happens."""

import json
import re
import subprocess
import sys

import pytest

from tests.running import ROOT, Server

README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def _as_served(text: str, server: Server) -> str:
    """With the addresses and the key of the server under test."""
    text = text.replace("127.0.0.1:8000", server.http).replace("127.0.0.1:8001", server.grpc)
    return text.replace(".tidegate/dev-key", str(server.state_dir / "dev-key"))


def test_the_first_call_gives_the_output_shown(server: Server) -> None:
    (command,) = [block for block in _blocks("sh") if block.startswith("curl")]
    (shown,) = [json.loads(block) for block in _blocks("json")]
    printed = subprocess.check_output(["bash", "-c", _as_served(command, server)], cwd=ROOT, text=True)
    answer = json.loads(printed)
    # Processors round differently: FP32 scores of one model agree to about 1e-5.
    for prediction in shown["predictions"] + answer["predictions"]:
        prediction["score"] = pytest.approx(prediction["score"], abs=1e-3)
    assert answer == shown


def test_the_python_call_gives_the_output_shown(server: Server) -> None:
    (code,) = _blocks("python")
    (shown,) = _blocks("text")
    assert subprocess.check_output([sys.executable, "-c", _as_served(code, server)], cwd=ROOT, text=True) == shown


def test_every_make_target_and_command_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)`", README)) | {"up", "test"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    shown = subprocess.check_output([sys.executable, "-m", "tidegate", "--help"], text=True)
    (row,) = re.findall(r"tidegate --help` \| (.*) \|", README)
    for command in re.findall(r"`(\w+)`", row):
        assert f" {command} " in shown
