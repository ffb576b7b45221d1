"""The embedded Triton: started, awaited, watched, and stopped without a trace."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import structlog

from serving.arguments import triton_arguments, triton_environment
from serving.backend_directory import lay_out_backends
from serving.control import TritonControl
from serving.distribution import find_distribution
from serving.errors import TritonStartFailed
from serving.ports import Listen, ReservedPort
from serving.process import SupervisedProcess
from serving.settings import TritonSettings
from serving.shared_memory import RegionPrefix, remove_orphaned_regions
from serving.stubs import Stub, StubWatch
from serving.triton_log import TritonLog

_log = structlog.stdlib.get_logger(__name__)


class EmbeddedTriton:
    """One tritonserver of the wheel, on two ports, of the loopback by default, that stay the same when it is started again."""

    def __init__(
        self,
        repository: Path | str,
        *,
        state_dir: Path,
        settings: TritonSettings,
        environment: Mapping[str, str],
        listen: Listen = Listen(),
        number: int = 0,
    ) -> None:
        """Describe the server; nothing is started or written.

        Args:
            repository: A model repository on disk, or an s3:// address.
            state_dir: Where the backends are laid out; servers may share it.
            environment: What Triton and its models get beside what they need.
            listen: Triton has no keys: beyond loopback the network must keep strangers out.
            number: Which of several it is, for the log.

        Raises:
            OSError: A port of `listen` is taken.
        """
        self._name = f"tritonserver {number}" if number else "tritonserver"
        self._repository = str(repository)
        self._state_dir = state_dir
        self._settings = settings
        self._environment = environment
        self._listen = listen
        self._grpc_port = ReservedPort(listen.host, listen.grpc_port)
        self._metrics_port = ReservedPort(listen.host, listen.metrics_port)
        self._regions = RegionPrefix.of_this_process()
        self._control = TritonControl(self.grpc_address)
        self._log = TritonLog()
        self._process: SupervisedProcess | None = None
        self._stubs: StubWatch | None = None
        self._ready = asyncio.Event()
        self._first_start: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._readiness: asyncio.Task[None] | None = None
        self._reloads: dict[tuple[str, ...], asyncio.Task[None]] = {}

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of Triton's gRPC service."""
        return f"{self._listen.reachable_host}:{self._grpc_port.number}"

    @property
    def metrics_url(self) -> str:
        """Triton's own Prometheus metrics."""
        return f"http://{self._listen.reachable_host}:{self._metrics_port.number}/metrics"

    @property
    def pid(self) -> int | None:
        """The process id of tritonserver; None while it is not running."""
        return self._process.pid if self._process else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._process.restarts if self._process else 0

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded its models since it was last started, and runs."""
        return self._ready.is_set()

    async def start(self) -> None:
        """Start Triton and return when it is ready, every model loaded or refused.

        Raises:
            DistributionMissing: There is no tritonserver here.
            TritonStartFailed: It exited or was not ready in time. Nothing is left running.
        """
        distribution = find_distribution()
        if removed := remove_orphaned_regions():
            _log.info("triton.orphaned_regions_removed", regions=removed)
        argv = triton_arguments(
            distribution,
            self._settings,
            repository=self._repository,
            backend_directory=lay_out_backends(distribution, self._state_dir / "backends"),
            grpc_port=self._grpc_port.number,
            metrics_port=self._metrics_port.number,
            shm_prefix=self._regions.text,
            host=self._listen.host,
        )
        self._process = SupervisedProcess(
            self._name,
            argv,
            triton_environment(distribution, self._environment),
            settings=self._settings.supervision,
            on_start=self._on_start,
            on_exit=self._on_exit,
            on_line=self._on_line,
        )
        try:
            await self._process.start()
            if fault := await self._first_start:
                raise TritonStartFailed("; ".join([fault, *self._log.last_errors]))
        except BaseException:
            await self.stop()
            raise

    async def wait_until_ready(self) -> None:
        """Return at once while Triton is ready, else when it is again."""
        await self._ready.wait()

    async def unavailable_models(self) -> dict[str, str]:
        """Why models are not served, by `name/version`, or by name where no version was reached.

        Raises:
            grpc.RpcError: Triton does not answer.
        """
        unavailable = await self._control.unavailable_models()
        unreadable = self._log.unreadable_models
        return {key: unreadable.get(key, reason) for key, reason in unavailable.items()}

    async def stop(self) -> None:
        """Let requests in flight end, then end every process and remove what they left. May be called twice."""
        reloads = tuple(self._reloads.values())
        for task in reloads:
            task.cancel()
        if self._process is not None:
            await self._process.stop()
        await asyncio.gather(*reloads, return_exceptions=True)
        await self._control.close()
        self._grpc_port.close()
        self._metrics_port.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _on_start(self, pid: int) -> None:
        self._stubs = StubWatch(pid, self._on_stub_death)
        self._readiness = asyncio.create_task(self._await_readiness(), name="triton readiness")

    def _on_exit(self, status: int) -> None:
        self._ready.clear()
        if self._readiness is not None:
            self._readiness.cancel()
        if self._stubs is not None:
            self._stubs.close()
        self._regions.remove_regions()
        self._conclude_first_start(f"tritonserver exited with status {status}")

    def _on_line(self, line: str) -> None:
        message = self._log.relay(line)
        if self._stubs is not None and message.startswith("successfully loaded"):
            self._stubs.discover()

    async def _await_readiness(self) -> None:
        timeout_s = self._settings.startup_timeout_s
        fault = "tritonserver could not start"
        try:
            ready = await self._control.wait_until_started(timeout_s)
        except TimeoutError:
            ready, fault = False, f"tritonserver was not ready after {timeout_s:g} s"
        if ready:
            self._ready.set()
            self._conclude_first_start(None)
            _log.info("triton.ready", grpc=self.grpc_address, metrics=self.metrics_url)
        else:
            _log.error("triton.not_ready", fault=fault)
            self._conclude_first_start(fault)
            self._kill()

    def _conclude_first_start(self, fault: str | None) -> None:
        if not self._first_start.done():
            self._first_start.set_result(fault)

    def _on_stub_death(self, stub: Stub) -> None:
        _log.error("triton.stub_died", pid=stub.pid, model=stub.candidates[0])
        key = stub.candidates
        if key not in self._reloads:
            task = asyncio.create_task(self._reload(stub), name="triton reload")
            self._reloads[key] = task
            task.add_done_callback(lambda _: self._reloads.pop(key))

    async def _reload(self, stub: Stub) -> None:
        """Load the stub's model anew; where that cannot be done, start the whole server anew."""
        try:
            async with asyncio.timeout(self._settings.startup_timeout_s):
                model = await self._control.reload_first_known(stub.candidates)
        except (grpc.RpcError, TimeoutError) as error:
            _log.error("triton.reload_failed", model=stub.candidates[0], error=str(error))
            model = None
        if model is not None:
            _log.info("triton.model_reloaded", model=model)
        else:
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
