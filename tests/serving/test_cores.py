"""Who computes on a machine, over a real file's lock."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from serving.backends.cores import Cores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lock").touch()
    return tmp_path / "lock"


@pytest.fixture
def three(path: Path) -> Iterator[list[Cores]]:
    instances = [Cores(path) for _ in range(3)]
    yield instances
    for instance in instances:
        instance.close()


def test_one_that_computes_is_alone_until_another_does(three: list[Cores]) -> None:
    first, second, third = three
    with first.compute() as alone:
        assert alone
        with second.compute() as alone:
            assert not alone
            with third.compute() as alone:
                assert not alone
    with third.compute() as alone:
        assert alone


def test_who_came_later_is_seen_by_those_who_come_again(three: list[Cores]) -> None:
    first, second, _ = three
    early = first.compute()
    assert early.__enter__()
    with second.compute():
        early.__exit__(None, None, None)
        with first.compute() as alone:
            assert not alone


@pytest.mark.parametrize(("seconds", "short"), [(0.001, True), (0.003, False)])
def test_short_executions_are_told_from_others_by_what_they_commonly_take(
    path: Path, seconds: float, short: bool
) -> None:
    instance = Cores(path, count(step=seconds).__next__)
    assert instance.short
    for _ in range(20):
        with instance.compute():
            pass
    assert instance.short == short
    instance.close()


def test_one_that_dies_computes_no_longer(path: Path, three: list[Cores]) -> None:
    program = "import sys; from pathlib import Path; from serving.backends.cores import Cores\n"
    program += "with Cores(Path(sys.argv[1])).compute(): print('computes', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"computes\n"
        with three[0].compute() as alone:
            assert not alone
        process.kill()
        process.wait()
        with three[0].compute() as alone:
            assert alone
