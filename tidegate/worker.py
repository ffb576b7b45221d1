"""One gateway worker: what it imports, and its run."""

import gc
import importlib

from gateway.settings import GatewaySettings
from tidegate.errors import bad_certificate
from tidegate.settings import gateway_settings


def prepare() -> GatewaySettings:
    """Read the settings from the environment and import the gateway. No thread is started and no gRPC object made.

    Raises:
        BadInput: A variable is wrong; the message names it.
    """
    settings = gateway_settings()
    # Of what is imported nothing is garbage, and looking for some takes a fifth of a worker's start.
    gc.disable()
    importlib.import_module("gateway.server")
    gc.freeze()
    gc.enable()
    return settings


def serve(settings: GatewaySettings) -> None:
    """Serve until a signal ends it; after `prepare`.

    Raises:
        BadInput: The certificate cannot be served.
    """
    import uvloop

    from gateway.server import run
    from gateway.tls import BadCertificate

    try:
        uvloop.run(run(settings))
    except BadCertificate as error:
        raise bad_certificate(error) from error
