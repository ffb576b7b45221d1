"""A real Prometheus, started for tests on a free port."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.gateway.redis_server import free_port

_START_S = 30.0
_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that scrapes and evaluates every second."""

    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """What an expression gives now: its series, empty where there are none.

        Raises:
            AssertionError: It is not an expression.
        """
        return self._get("query", query=expr)["result"]  # type: ignore[no-any-return]  # As Prometheus promises.

    def exemplars(self, expr: str) -> list[dict[str, Any]]:
        """The series with exemplars of the last minute."""
        now = time.time()
        found: list[dict[str, Any]] = self._get("query_exemplars", query=expr, start=str(now - 60), end=str(now))
        return found

    def when(self, true: Callable[[], object], what: str) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + _WAIT_S
        while not true():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def _get(self, method: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{method}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]


@contextmanager
def running(directory: Path, targets: Mapping[str, str], rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """Started, and ended after.

    Args:
        targets: host:port by the name of the job.
    """
    jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": jobs,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
    ]
    flags = [
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage,native-histograms",
        "--log.level=warn",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log)
    try:
        _wait(process, address, directory / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(_START_S)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            if httpx.get(f"http://{address}/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
