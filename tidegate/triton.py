"""`tidegate triton`: the embedded Triton without a gateway."""

import asyncio
import signal
from collections.abc import Sequence

import structlog

from gateway.settings import is_loopback
from serving.errors import ServingError
from serving.ports import Listen
from serving.triton import EmbeddedTriton
from tidegate.errors import CommandError
from tidegate.live import withdraw_refused
from tidegate.settings import UpSettings, inherited_environment, up_settings

_log = structlog.get_logger(__name__)


def serve() -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        CommandError: It cannot start.
    """
    settings = up_settings()
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}; check TIDEGATE_STATE_DIR") from error
    asyncio.run(_serve(settings))


async def leave_out_refused(settings: UpSettings, tritons: Sequence[EmbeddedTriton]) -> dict[str, str]:
    """Have Tritons that have started serve the good versions of models of which they refuse one.

    Returns:
        What is wrong with the versions that had to be taken out of the configs, by `name/version`.
    """
    unavailable = await tritons[0].unavailable_models()
    if not unavailable:
        return {}
    addresses = [triton.grpc_address for triton in tritons]
    refused = await asyncio.to_thread(withdraw_refused, settings.model_repository, unavailable, addresses)
    for version, reason in refused.items():
        _log.error("models.version_refused", version=version, reason=reason)
    return refused


async def _serve(settings: UpSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    if not is_loopback(settings.host):
        _log.warning("triton.open", host=settings.host, advice="let only gateways reach it: it asks for no key")
    try:
        triton = EmbeddedTriton(
            settings.model_repository,
            state_dir=settings.state_dir,
            settings=settings.triton,
            environment=inherited_environment(),
            listen=Listen(settings.host, settings.grpc_port, settings.metrics_port),
        )
    except OSError as error:
        raise CommandError(
            f"{settings.host}: {error.strerror}; check TIDEGATE_HOST, TIDEGATE_GRPC_PORT and TIDEGATE_METRICS_PORT"
        ) from error
    starting = asyncio.ensure_future(triton.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await leave_out_refused(settings, [triton])
            for model, reason in (await triton.unavailable_models()).items():
                _log.error("models.not_served", model=model, reason=reason)
            await stopping
        _log.info("stopping")
    except ServingError as error:
        raise CommandError(str(error)) from error
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await triton.stop()
