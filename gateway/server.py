"""One worker: both doors and the metrics on their ports, until a signal ends it."""

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Any

import structlog
import uvicorn

from gateway import heap, listening
from gateway.errors import Unavailable
from gateway.operations import Readiness
from gateway.rest import app as rest_app
from gateway.rest import protocol
from gateway.rpc import server as rpc_server
from gateway.rpc.server import RpcServer
from gateway.settings import GatewaySettings, LimitSettings
from gateway.wiring import Gateway

_READINESS_S = 0.1
_TASKS_S = 1.0
# A caller that waits for longer between two requests may find its connection closed, and asks on another.
_LAST_ANSWERS_S = 0.5
_LOOK_S = 0.02
# Calls leave no cycles behind, and those of many callers that are under way are not to be looked at all the time.
_YOUNG_OBJECTS = 10_000

_log = structlog.get_logger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT; then take no more, finish what is under way within `drain_s`, and return."""
    heap.use_one_arena()
    gateway = Gateway.build(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    rpc = RpcServer(rpc_server.methods(gateway.handler, gateway.health), settings.limits)
    drain_s = settings.limits.drain_s
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(gateway.close)
        await cleanup.enter_async_context(gateway.identities.running())
        await cleanup.enter_async_context(_background(gateway))
        rest = rest_app.build(gateway.door, version("tidegate"))
        tls = None if gateway.certificates is None else gateway.certificates.context("http/1.1")
        limits, readiness = settings.limits, gateway.readiness
        await cleanup.enter_async_context(_http(rest, settings.host, settings.http_port, limits, readiness, tls))
        tls = None if gateway.certificates is None else gateway.certificates.context("h2")
        await rpc.start(listening.listener(settings.host, settings.grpc_port), tls)
        # Last, because it says that this worker is ready.
        metrics = gateway.exposition.app()
        await cleanup.enter_async_context(_http(metrics, settings.host, settings.metrics_port, limits, readiness))
        # What is there now stays, and need not be looked at with every collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        _log.info("worker serves", worker=settings.worker)
        await stop.wait()
        gateway.readiness.drain()
        gateway.health.tell(False)
        await asyncio.sleep(settings.limits.lame_duck_s)
        await rpc.stop(drain_s)
    _log.info("worker ended", worker=settings.worker)


@contextlib.asynccontextmanager
async def _background(gateway: Gateway) -> AsyncIterator[None]:
    """Keep the catalog and the certificates fresh and the process small, and tell those who watch the health."""

    async def tell() -> None:
        while True:
            gateway.health.tell(gateway.readiness.ready)
            await asyncio.sleep(_READINESS_S)

    async def count_tasks() -> None:
        while True:
            gateway.fleet.tasks(len(asyncio.all_tasks()))
            await asyncio.sleep(_TASKS_S)

    await gateway.upstream.find_replicas()
    await gateway.catalog.refresh()
    with contextlib.suppress(Unavailable):
        await gateway.router.refresh()
    upstream = gateway.upstream
    keep = (
        upstream.keep_found(),
        upstream.keep_checked(),
        gateway.catalog.keep_fresh(),
        gateway.router.keep_fresh(),
        count_tasks(),
        tell(),
        heap.keep_small(),
    )
    tasks = [asyncio.create_task(each) for each in keep]
    if gateway.certificates is not None:
        tasks.append(asyncio.create_task(gateway.certificates.keep_fresh()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, as the worker has its own, and with a bound on TLS handshakes.

    Args:
        tls: None: without TLS.
        stall_s: Time for a handshake, and for its end.
    """

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, stall_s: float) -> None:
        super().__init__(config)
        bound_s = None if tls is None else stall_s  # Only with TLS may it be given.
        self._tls: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": bound_s, "ssl_shutdown_timeout": bound_s}
        self._listeners: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.started = False
        self._listeners = sockets or []
        for listener in self._listeners:
            server = await asyncio.get_running_loop().create_server(
                self._connection, sock=listener, backlog=self.config.backlog, **self._tls
            )
            self.servers.append(server)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer for a moment more, which tells callers that each answer is their connection's last; then end as uvicorn does."""
        loop = asyncio.get_running_loop()
        opening = [
            loop.create_task(loop.connect_accepted_socket(self._connection, accepted, **self._tls))
            for listener in self._listeners
            for accepted in listening.accepted(listener)
        ]
        for server in self.servers:
            server.close()
        deadline = loop.time() + _LAST_ANSWERS_S
        if opening:
            _, stalled = await asyncio.wait(opening, timeout=_LAST_ANSWERS_S)
            for handshake in stalled:
                handshake.cancel()
        while self.server_state.connections and loop.time() < deadline:
            await asyncio.sleep(_LOOK_S)
        await super().shutdown([])

    def _connection(self) -> asyncio.Protocol:
        protocol_class: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _http(
    app: object,
    host: str,
    port: int,
    limits: LimitSettings,
    readiness: Readiness,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serve an ASGI application for the length of the block."""
    listener = listening.listener(host, port)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn types ASGI applications more narrowly than Starlette does.
        http=protocol.bounded(limits, readiness),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=listening.BACKLOG,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
    )
    server = _Server(config, tls, limits.stall_s)
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
