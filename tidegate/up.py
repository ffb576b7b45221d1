"""`tidegate up`: one Triton or several, N gateway workers, restarted when they die, ended together."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
import httpx
import structlog
from tritonclient.grpc.service_pb2 import RepositoryIndexRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway import tls
from gateway.metrics.workers import forget_gauges
from gateway.settings import MEBIBYTE, is_loopback
from gateway.upstream.regions import remove_orphans
from serving.errors import ServingError
from serving.process import SupervisedProcess
from serving.settings import SupervisionSettings
from serving.triton import EmbeddedTriton
from tidegate import banner, ports, state
from tidegate.errors import CommandError, bad_certificate
from tidegate.settings import UpSettings, inherited_environment, up_settings
from tidegate.triton import leave_out_refused

_WORKERS_READY_S = 60.0
_READY_POLL_S = 0.05
_AFTER_DRAIN_S = 5.0
# The Tritons that are started here allow it.
_KEEPALIVE_S = 10.0
_SHARED_MEMORY_BYTES = 128 * MEBIBYTE

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ports:
    http: int
    grpc: int
    metrics: int


def serve() -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        CommandError: It cannot start.
    """
    settings = up_settings()
    _check_tls(settings)
    with (
        ports.held(settings.host, settings.http_port, "TIDEGATE_HTTP_PORT") as http,
        ports.held(settings.host, settings.grpc_port, "TIDEGATE_GRPC_PORT") as rpc,
        ports.held(settings.host, settings.metrics_port, "TIDEGATE_METRICS_PORT") as metrics,
        state.prepared(settings),
    ):
        asyncio.run(_serve(settings, _Ports(http, rpc, metrics)))


def _check_tls(settings: UpSettings) -> None:
    """Before anything is started: what every worker would fail with, and what goes over the network in the clear.

    Raises:
        CommandError: The certificate cannot be served.
    """
    if settings.tls.certificate is None:
        if not is_loopback(settings.host):
            _log.warning(
                "keys and requests can be read on their way; set TIDEGATE_TLS__CERTIFICATE", host=settings.host
            )
        return
    try:
        tls.load(settings.tls)
    except tls.BadCertificate as error:
        raise bad_certificate(error) from error


async def _serve(settings: UpSettings, public: _Ports) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    tritons = [
        EmbeddedTriton(
            settings.model_repository,
            state_dir=settings.state_dir,
            settings=settings.triton,
            environment=inherited_environment(),
            number=number,
        )
        for number in range(settings.triton.replicas)
    ]
    _log.info("starting", repository=settings.model_repository, workers=settings.workers, replicas=len(tritons))
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(_stop, tritons)
        try:
            if not await _unless(stop, _start(tritons)):
                return
        except ServingError as error:
            raise CommandError(str(error)) from error
        refused = await leave_out_refused(settings, tritons)
        await cleanup.enter_async_context(_workers(settings, public, tritons))
        if not await _unless(stop, _announce(settings, public, tritons[0], refused)):
            return
        await stop.wait()
        _log.info("stopping")


async def _start(tritons: Sequence[EmbeddedTriton]) -> None:
    """All at once; where one cannot start none is left running."""
    starting = [asyncio.create_task(triton.start()) for triton in tritons]
    try:
        await asyncio.gather(*starting)
    finally:
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)


async def _stop(tritons: Sequence[EmbeddedTriton]) -> None:
    await asyncio.gather(*(triton.stop() for triton in tritons))


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do the work, or leave it when told to stop; whether it was done."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


@contextlib.asynccontextmanager
async def _workers(settings: UpSettings, public: _Ports, tritons: Sequence[EmbeddedTriton]) -> AsyncIterator[None]:
    """The gateway's processes, for the length of the block."""
    environment = inherited_environment() | {
        # Nothing is multiplied there, and what has threads is unsafe to fork.
        "OPENBLAS_NUM_THREADS": "1",
        "TIDEGATE_HTTP_PORT": str(public.http),
        "TIDEGATE_GRPC_PORT": str(public.grpc),
        "TIDEGATE_METRICS_PORT": str(public.metrics),
        "TIDEGATE_UPSTREAM__ADDRESS": ",".join(triton.grpc_address for triton in tritons),
        "TIDEGATE_UPSTREAM__METRICS_URL": ",".join(triton.metrics_url for triton in tritons),
        "TIDEGATE_UPSTREAM__KEEPALIVE_S": str(min(settings.upstream.keepalive_s, _KEEPALIVE_S)),
        "TIDEGATE_UPSTREAM__SHARED_MEMORY_BYTES": str(
            _SHARED_MEMORY_BYTES
            if settings.upstream.shared_memory_bytes is None
            else settings.upstream.shared_memory_bytes
        ),
    }
    supervision = SupervisionSettings(
        exit_timeout_s=settings.limits.lame_duck_s + settings.limits.drain_s + _AFTER_DRAIN_S
    )
    workers = SupervisedProcess(
        "gateway",
        (sys.executable, "-P", "-m", "tidegate.workers", str(settings.workers)),
        environment,
        settings=supervision,
        on_exit=partial(_forget, settings),
    )
    try:
        await workers.start()
        yield
    finally:
        await workers.stop()


def _forget(settings: UpSettings, _: int) -> None:
    for number in range(settings.workers):
        forget_gauges(settings.metrics_dir, number)
    remove_orphans()


async def _announce(settings: UpSettings, public: _Ports, triton: EmbeddedTriton, refused: Mapping[str, str]) -> None:
    """When a worker answers that it is ready: write where, and print the banner."""
    http, rpc, metrics = (_address(settings.host, port) for port in (public.http, public.grpc, public.metrics))
    await _until_serving(metrics)
    async with grpc.aio.insecure_channel(triton.grpc_address) as channel:
        index = await GRPCInferenceServiceStub(channel).RepositoryIndex(RepositoryIndexRequest(ready=True))
    ready = sorted({model.name for model in index.models})
    print(
        banner.text(settings, http, rpc, metrics, ready, {**await triton.unavailable_models(), **refused}), flush=True
    )
    state.write_endpoints(settings, http, rpc, metrics)


async def _until_serving(metrics: str) -> None:
    """Asked of the inner port, where no certificate is needed."""
    try:
        async with asyncio.timeout(_WORKERS_READY_S), httpx.AsyncClient(trust_env=False) as client:
            while not await _is_ready(client, f"http://{metrics}/v2/health/ready"):
                await asyncio.sleep(_READY_POLL_S)
    except TimeoutError as error:
        raise CommandError(f"no gateway worker was ready after {_WORKERS_READY_S:g} s; its log says why") from error


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False


def _address(host: str, port: int) -> str:
    """host:port, to connect to."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
