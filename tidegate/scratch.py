"""A `tidegate up` beside all others, with a copy of one model, to try tunings on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import structlog

from contract.manifest import Manifest, Tuned
from contract.repository import MANIFEST
from contract.tuning import Tuning
from export.configs import shared_files
from export.local import LocalStore
from export.machine import machine
from export.store import Store
from export.versions import Versions
from gateway.rest.door import TIMEOUT_HEADER
from serving import launch
from tidegate.client import ENDPOINTS, RunningServer, find_server, post, running_server
from tidegate.errors import CommandError
from tidegate.settings import inherited_environment

_START_S = 300.0
_POLL_S = 0.05
_LOAD_S = 300
_STOP_S = 60.0
# Of what the environment says to `tidegate up`: the rest may lead to what others use, as a database does.
_KEPT = ("TIDEGATE_WORKERS", "TIDEGATE_TRITON__")
_LEFT_OUT = "TIDEGATE_TRITON__MODEL_CONFIG_NAME"

_log = structlog.get_logger(__name__)


class Scratch:
    """The copy, and what serves it.

    Attributes:
        server: Where it is.
    """

    def __init__(self, server: RunningServer, client: httpx.Client, versions: Versions, version: int) -> None:
        self.server = server
        self._client = client
        self._versions = versions
        self._version = version

    def serve(self, model: str, tuning: Tuning) -> bool:
        """Run a model so; whether the server does."""
        now = datetime.now(UTC)
        tuned = Tuned(tuning=tuning, slo="", load="", figure="", before=(), after=(), machine=machine(), tuned_at=now)

        def reload(each: str) -> None:
            # A load alone would keep instances that are there, with their threads.
            if each == model:
                post(self._client, f"/v2/repository/models/{each}/unload")
                headers = {TIMEOUT_HEADER: str(_LOAD_S * 1_000)}
                post(self._client, f"/v2/repository/models/{each}/load", headers=headers, timeout=_LOAD_S)

        try:
            self._versions.tune(self._version, model, tuned, reload)
        except CommandError as error:
            _log.warning("tuning.refused", model=model, tuning=str(tuning), reason=str(error))
            return False
        return True


@contextmanager
def serving(store: Store, manifest: Manifest) -> Iterator[Scratch]:
    """Copy a version and serve the copy on free ports, for the length of the block.

    Raises:
        RepositoryFailed: It cannot be read, or the copy cannot be written.
        CommandError: It is not served.
    """
    with TemporaryDirectory(prefix="tidegate-") as place:
        repository, state_dir = Path(place, "models"), Path(place, "state")
        copy = LocalStore(repository)
        _copy(store, manifest, copy)
        state_dir.mkdir()
        with _up(repository, state_dir), running_server(state_dir) as client:
            yield Scratch(find_server(state_dir), client, Versions(copy, manifest.model), manifest.version)


def _copy(store: Store, manifest: Manifest, copy: LocalStore) -> None:
    models = manifest.card.encoded_name, manifest.model
    for path in (*manifest.artifacts, *(f"{model}/{manifest.version}/{MANIFEST}" for model in models)):
        if (data := store.read(path)) is not None:
            copy.replace(path, data)
    for model in models:
        for path, text in shared_files(model, manifest, [manifest]).items():
            if text is not None:
                copy.replace(path, text)
    if faults := Versions(copy, manifest.model).faults(manifest.version):
        raise CommandError(f"{faults[0]}; {manifest.model} {manifest.version} is not tried")


@contextmanager
def _up(repository: Path, state_dir: Path) -> Iterator[None]:
    inherited = {
        name: value
        for name, value in inherited_environment().items()
        if not name.startswith("TIDEGATE_") or (name.startswith(_KEPT) and name != _LEFT_OUT)
    }
    environment = inherited | {
        "TIDEGATE_HTTP_PORT": "0",
        "TIDEGATE_GRPC_PORT": "0",
        "TIDEGATE_METRICS_PORT": "0",
        "TIDEGATE_STATE_DIR": str(state_dir),
        "TIDEGATE_MODEL_REPOSITORY": str(repository),
    }
    log = state_dir / "log"
    command = (sys.executable, "-P", "-m", "tidegate", "up")
    with log.open("wb") as output, _ended_with_us(command, environment, output.fileno()) as process:
        deadline = time.monotonic() + _START_S
        while not (state_dir / ENDPOINTS).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the model cannot be served: {_last_line(log)}")
            time.sleep(_POLL_S)
        yield


@contextmanager
def _ended_with_us(
    command: Sequence[str], environment: dict[str, str], output: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that Ctrl-C does not reach, and that does not outlive this one, however it ends."""
    launched = (sys.executable, launch.__file__, str(os.getpid()), *command)
    process = subprocess.Popen(launched, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _last_line(log: Path) -> str:
    return next(iter(reversed(log.read_text(errors="replace").splitlines())), "it says nothing")
