"""Every shell block of the tutorial and the how-tos runs as it stands there, or says why it does not."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mkdocs_hooks
from gateway.errors import ErrorKind
from tests.running import REPOSITORY, ROOT, Server, running

PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
# A fence of another language, or one that is indented, would hide a command.
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = {"sh", "bash", "shell", "console"}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A directory as a reader has it, with a server that runs there."""

    directory: Path
    server: Server

    def follow(self, page: Path) -> int:
        """Do what a page says, in order; the number of blocks that ran."""
        ran = 0
        for block in _BLOCK.finditer(page.read_text()):
            if block["title"]:
                (self.directory / block["title"]).write_text(block["text"])
            elif block["language"] in _SHELL and not block["reason"]:
                self._run(block["text"])
                ran += 1
        return ran

    def _run(self, text: str) -> None:
        server = self.server
        for documented, real in (("8000", server.http), ("8001", server.grpc), ("8002", server.metrics)):
            text = text.replace(f"127.0.0.1:{documented}", real)
        path = f"{sys.prefix}/bin:{os.environ['PATH']}"
        environment = {**os.environ, **server.environment, "PATH": path}
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    directory = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPOSITORY, directory / "model_repository")
    for name in ("Makefile", "examples", "k8s", "loadtest", "tidegate"):
        (directory / name).symlink_to(ROOT / name)
    (directory / ".venv").symlink_to(sys.prefix)
    repository = directory / "model_repository"
    with running(directory / ".tidegate", WORKERS="1", MODEL_REPOSITORY=str(repository)) as server:
        yield Checkout(directory, server)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_can_be_done(checkout: Checkout, page: Path) -> None:
    assert checkout.follow(page) >= (0 if page.stem == "containers" else 1)


def test_every_fence_is_read_by_these_tests() -> None:
    for page in PAGES:
        fences = re.findall(r"^\s*```\w", page.read_text(), re.MULTILINE)
        assert len(fences) == len(list(_BLOCK.finditer(page.read_text()))), page


def test_the_reference_is_made_of_the_code() -> None:
    commands = set(re.findall(r"^## `tidegate (\w+)`$", mkdocs_hooks.cli(), re.MULTILINE))
    assert {"up", "gateway", "triton", "keys", "models", "doctor"} <= commands
    errors, metrics = mkdocs_hooks.error_table(), mkdocs_hooks.metric_table()
    assert re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE) == [kind.value for kind in ErrorKind]
    assert "| `limit_exceeded` | 429 | RESOURCE_EXHAUSTED |" in errors
    assert "| `tidegate_stage_duration_seconds` | histogram | `stage`, `model`, `version`, `outcome` |" in metrics
    assert mkdocs_hooks.on_page_markdown("a\n{{ errors }}\nb") == f"a\n{errors}\nb"


def test_the_navigation_has_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page


def test_every_promise_of_the_security_page_names_tests_that_are_there() -> None:
    table = (ROOT / "docs" / "security.md").read_text().partition("|---|---|\n")[2].partition("\n\n")[0]
    assert table
    for row in table.splitlines():
        named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", row)
        assert named and row.count(".py") == len(named), row
        for path, test in named:
            assert re.search(rf"^(async )?def {test}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), test
