"""The house: which package may import which. Any other arrow fails."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("contract", "training", "export", "serving", "gateway", "loadtest", "monitoring", "tidegate")
ALLOWED: dict[str, set[str]] = {
    "contract": set(),
    "training": {"contract"},
    "export": {"contract"},
    "serving": {"contract"},
    "gateway": {"contract"},
    "loadtest": {"contract"},
    "monitoring": set(),
    "tidegate": set(PACKAGES),
}
# The one file of `export` that knows how a checkpoint was trained, and the benchmark's limit, which decodes as the server does.
EXCEPTIONS = {("export/load.py", "training"), ("loadtest/bench/limit.py", "serving")}


def _imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Top-level packages a module imports; without `lazy`, those it imports when it is imported."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    wrong = [
        (name, imported)
        for path in sorted((ROOT / package).rglob("*.py"))
        for imported in _imports(path)
        if imported in PACKAGES and imported != package and imported not in ALLOWED[package]
        for name in [path.relative_to(ROOT).as_posix()]
        if (name, imported) not in EXCEPTIONS
    ]
    assert wrong == []


def test_the_command_line_imports_nothing_heavy_before_it_must() -> None:
    imported = set(_imports(ROOT / "tidegate" / "cli.py", lazy=False))
    assert imported == {"pathlib", "sys", "tidegate", "typer", "typing"}


def test_a_worker_imports_nothing_for_what_may_be_off() -> None:
    program = (
        "import sys, gateway.server; print(*sorted(sys.modules.keys() & {'alembic', 'opentelemetry.sdk', 'redis'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split() == []


@pytest.mark.parametrize("package", ["contract", "gateway", "serving"])
def test_the_serving_path_has_no_torch(package: str) -> None:
    importing = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*.py")
        if {"torch", "torchvision", "lightning"} & set(_imports(path))
    ]
    assert [path for path in importing if not path.startswith("serving/backends/pytorch/")] == []
