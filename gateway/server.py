"""One worker: both doors and the metrics on their ports, until a signal ends it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import structlog
import uvicorn

from gateway.rest import app as rest_app
from gateway.rest import protocol
from gateway.rpc import server as rpc_server
from gateway.settings import GatewaySettings, LimitSettings
from gateway.wiring import Gateway

_READINESS_S = 0.1
_BACKLOG = 2_048

_log = structlog.get_logger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT; then take no more, finish what is under way within `drain_s`, and return."""
    gateway = Gateway.build(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    grpc_server = rpc_server.build(gateway.handler, gateway.health, settings.limits)
    grpc_server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    drain_s = settings.limits.drain_s
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(gateway.close)
        await cleanup.enter_async_context(gateway.identities.running())
        await cleanup.enter_async_context(_background(gateway))
        rest = rest_app.build(gateway.door, version("tidegate"))
        await cleanup.enter_async_context(_http(rest, settings.host, settings.http_port, settings.limits))
        metrics = gateway.exposition.app()
        await cleanup.enter_async_context(_http(metrics, settings.host, settings.metrics_port, settings.limits))
        await grpc_server.start()
        _log.info("worker serves", worker=settings.worker)
        await stop.wait()
        gateway.readiness.drain()
        await gateway.health.tell(False)
        await grpc_server.stop(drain_s)
    _log.info("worker ended", worker=settings.worker)


@contextlib.asynccontextmanager
async def _background(gateway: Gateway) -> AsyncIterator[None]:
    """Keep the catalog fresh, and tell those who watch the health."""

    async def tell() -> None:
        while True:
            await gateway.health.tell(gateway.readiness.ready)
            await asyncio.sleep(_READINESS_S)

    await gateway.catalog.refresh()
    tasks = [asyncio.create_task(gateway.catalog.keep_fresh()), asyncio.create_task(tell())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _http(app: object, host: str, port: int, limits: LimitSettings) -> AsyncIterator[None]:
    """Serve an ASGI application for the length of the block."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn types ASGI applications more narrowly than Starlette does.
        http=protocol.bounded(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        if task.done():
            await task
            raise RuntimeError(f"the HTTP server on port {port} ended while it started")
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task
