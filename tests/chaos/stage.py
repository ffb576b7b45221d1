"""The servers that faults are done to, and what is read of them."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from gateway.auth.administration import Administration, KeySpec
from gateway.auth.database import Database
from gateway.call import Scope, Tier
from tests.running import Server, running

_SHM_PREFIX = re.compile(r"shm-region-prefix-name=(\S+)")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


@dataclass(frozen=True, slots=True)
class Stage:
    """A running `tidegate up` with its model repository.

    Attributes:
        keys: One of each tier.
    """

    server: Server
    repository: Path
    keys: dict[str, str]

    @property
    def key(self) -> dict[str, str]:
        """The standard one alone."""
        return {"standard": self.keys["standard"]}

    def tritons(self) -> list[psutil.Process]:
        """The tritonservers, in the order of their replicas' addresses."""
        found = [p for p in psutil.Process(self.server.process.pid).children() if "tritonserver" in p.name()]
        ports = self.server_addresses()
        return sorted(found, key=lambda p: ports.index(_option(p, "--grpc-port")))

    def stubs(self, triton: psutil.Process, model: str) -> list[psutil.Process]:
        """The processes of a model in one of them."""
        return [p for p in triton.children() if f"/{model}/" in " ".join(p.cmdline())]

    def shared_memory(self) -> int:
        """Bytes in /dev/shm of these Tritons."""
        prefixes = tuple(
            match[1] for triton in self.tritons() for match in _SHM_PREFIX.finditer(" ".join(triton.cmdline()))
        )
        return sum(entry.stat().st_size for entry in os.scandir("/dev/shm") if entry.name.startswith(prefixes))

    def workers(self) -> list[psutil.Process]:
        """The gateway's processes."""
        return self.server.workers()

    def server_addresses(self) -> list[str]:
        """The ports of the replicas, as the workers know them."""
        address = self.workers()[0].environ()["TIDEGATE_UPSTREAM__ADDRESS"]
        return [part.rpartition(":")[2] for part in address.split(",")]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        async with _client(5) as client:
            text = (await client.get(f"http://{self.server.metrics}/metrics")).text
        total = 0.0
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if (
                sample
                and sample[1] == name
                and all(f'{label}="{value}"' in (sample[2] or "") for label, value in labels.items())
            ):
                total += float(sample[3])
        return total

    async def metric_is(self, name: str, value: float, **labels: str) -> bool:
        """Whether a metric has this value."""
        return await self.metric(name, **labels) == value

    async def ready(self) -> int:
        """The status of /v2/health/ready."""
        async with _client(5) as client:
            return (await client.get(f"http://{self.server.http}/v2/health/ready")).status_code

    async def admin(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask the REST door with the development key."""
        async with _client(60) as client:
            url = f"http://{self.server.http}{path}"
            response = await client.request(method, url, json=body, headers=self.server.headers)
            response.raise_for_status()
            return response


@asynccontextmanager
async def staged(where: Path | Stage, write: Callable[[Path], None], **settings: str) -> AsyncIterator[Stage]:
    """`tidegate up` with two replicas and a repository of its own.

    Args:
        where: A directory for it; or one that runs already, with these models and such settings.
    """
    if isinstance(where, Stage):
        yield where
        return
    directory, repository = where, where / "models"
    repository.mkdir(parents=True)
    write(repository)
    chosen = {"TRITON__REPLICAS": "2", "WORKERS": "1", "MODEL_REPOSITORY": str(repository), **settings}
    with running(directory / "state", **chosen) as server:
        yield Stage(server, repository, await _keys(directory / "state"))


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Hold a process up with SIGSTOP for the length of the block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def until(condition: Callable[[], object], seconds: float, every_s: float = 0.02) -> float | None:
    """How long until it holds; None where it does not in this time. Awaits what is awaitable."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return round(time.monotonic() - started, 2)
        await asyncio.sleep(every_s)
    return None


async def _keys(state_dir: Path) -> dict[str, str]:
    database = Database.at(f"sqlite+aiosqlite:///{state_dir / 'tidegate.db'}")
    administration = Administration(database)
    try:
        specs = {tier.value: KeySpec(tier.value, frozenset({Scope.INFER}), tier=tier) for tier in Tier}
        return {name: (await administration.create_key("chaos", spec)).text for name, spec in specs.items()}
    finally:
        await database.close()


def _client(timeout_s: float) -> httpx.AsyncClient:
    # Without `verify=False` it reads certificates for 20 ms, in which no call begins or ends.
    return httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=False)


def _option(process: psutil.Process, name: str) -> str:
    return next(part.partition("=")[2] for part in process.cmdline() if part.startswith(f"{name}="))
