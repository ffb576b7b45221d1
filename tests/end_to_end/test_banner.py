"""The banner's calls can be pasted as they stand."""

import re
import subprocess

from tests.running import ROOT, Server


def test_the_calls_of_the_banner_can_be_pasted(server: Server) -> None:
    banner = (server.state_dir / "banner").read_text()
    for address in (server.http, server.grpc, server.metrics, str(server.state_dir / "dev-key")):
        assert address in banner
    pasted = re.search(r"^curl .*?^PYTHON$", banner, re.MULTILINE | re.DOTALL)
    assert pasted is not None
    printed = subprocess.check_output(["bash", "-e", "-c", pasted.group()], cwd=ROOT, text=True)
    assert '"label":"7"' in printed and "[[" in printed
