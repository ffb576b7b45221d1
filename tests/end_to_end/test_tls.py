"""`tidegate up` with TLS and client certificates: it starts, says how it is called, and its own commands reach it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.certificates import issued, server_settings
from tests.running import ROOT, Server, running, tidegate


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for client certificates."""
    directory, ca = tmp_path_factory.mktemp("mutual"), trustme.CA()
    certificate, key = issued(ca, "commands.test").write(directory, "commands")
    shown = {"TLS__CLIENT_CERTIFICATE": str(certificate), "TLS__CLIENT_KEY": str(key)}
    with running(directory / "state", WORKERS="1", **server_settings(directory, ca, ca), **shown) as started:
        yield started


def test_the_calls_of_the_banner_can_be_pasted(mutual: Server) -> None:
    banner = (mutual.state_dir / "banner").read_text()
    assert f"https://{mutual.http}" in banner
    pasted = re.search(r"^curl .*?^PYTHON$", banner, re.MULTILINE | re.DOTALL)
    assert pasted is not None
    printed = subprocess.check_output(["bash", "-e", "-c", pasted.group()], cwd=ROOT, text=True)
    assert '"label":"7"' in printed and "[[" in printed


@pytest.mark.parametrize(
    ("command", "words"), [(("classify", "examples/seven.png"), "seven.png"), (("models", "check", "digits"), "checks")]
)
def test_commands_reach_it_over_both_ports(mutual: Server, command: tuple[str, ...], words: str) -> None:
    # The state directory is all that a command needs to know.
    ended = tidegate(*command, environment={"TIDEGATE_STATE_DIR": str(mutual.state_dir)})
    assert ended.returncode == 0, ended.stderr
    assert words in ended.stdout


def test_a_load_reaches_it_over_both_ports(mutual: Server, tmp_path: Path) -> None:
    tenants = [{"name": kind, "key": mutual.key, "kind": kind} for kind in ("tensors", "rest")]
    (tmp_path / "tenants.json").write_text(json.dumps(tenants))
    options = ("--rate", "50", "--duration", "1", "--warmup", "0.2", "--tenants", tmp_path / "tenants.json")
    ended = tidegate("load", *options, "--out", tmp_path, environment={"TIDEGATE_STATE_DIR": str(mutual.state_dir)})
    assert ended.returncode == 0, ended.stderr
    (run,) = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert run["tenants"].keys() == {"tensors", "rest"} and run["outcomes"] == {"ok": run["intended"]}
    assert run["parts"] and run["batches"]


def test_a_certificate_that_cannot_be_served_is_one_line_and_status_2(tmp_path: Path) -> None:
    settings = server_settings(tmp_path, trustme.CA())
    Path(settings["TLS__KEY"]).write_text("no key")
    ended = tidegate("up", environment={f"TIDEGATE_{name}": value for name, value in settings.items()})
    assert ended.returncode == 2
    assert "server.key" in ended.stderr and len(ended.stderr.splitlines()) == 1
