"""The committed digits, ready to be published anywhere, and what publishes them in a process of its own."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.manifest import Manifest
from contract.repository import ModelRepository
from export.package import publish
from tests.running import REPOSITORY, ROOT

# Publishes in one process after another, each of which kills itself a step later than the one before, until one ends
# well; prints how many were killed. A step is a piece of data that reaches the disk or the network.
_KILLED_AT_EVERY_STEP = """
import os, signal, socket, sys
from pathlib import Path
import export.s3
from contract.manifest import Manifest
from export.package import publish

def killing(call):
    def step(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return step

repository, files, stride = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
draft = Manifest.read(files / "manifest.json")
killed = 0
while True:
    child = os.fork()
    if child == 0:
        left = killed * stride
        os.fsync = killing(os.fsync)
        socket.socket.sendall = killing(socket.socket.sendall)
        publish(repository, draft, files)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed += 1
print(killed)
"""


@dataclass(frozen=True, slots=True)
class Publishable:
    """A version that is not published yet.

    Attributes:
        files: The directory with its files.
    """

    draft: Manifest
    files: Path

    def publish(self, destination: str | Path) -> int:
        """Publish it and give its number."""
        return publish(destination, self.draft, self.files).version

    def publish_killed_at_every_step(
        self, destination: str | Path, *, stride: int, environment: Mapping[str, str]
    ) -> int:
        """Publish in processes that are killed, `stride` steps further each time, until one is not; how many were."""
        arguments = [str(destination), str(self.files), str(stride)]
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED_AT_EVERY_STEP, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        return int(ended.stdout)


def committed_digits(directory: Path) -> Publishable:
    """The committed version, copied to `directory`."""
    committed = ModelRepository(REPOSITORY)
    shutil.copytree(committed.version_dir("digits", 1), directory)
    return Publishable(Manifest.read(committed.manifest("digits", 1)), directory)
