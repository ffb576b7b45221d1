"""`tidegate load`: a load test in a process of its own, since Locust's gevent goes with no other event loop."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from tidegate.errors import BadInput, CommandError

PREFIX = "TIDEGATE_LOAD_"
# Good to 0.1 ms; those of gevent's own choice are 0.6 ms late at the median.
TIMERS = {"GEVENT_BACKEND": "select"}
_PORTS = {"GRPC": 8001, "HTTP": 8000, "METRICS": 8002}


def load(
    target: Annotated[
        str | None, typer.Option(help="A host with the usual ports.", show_default="the running `tidegate up`")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model that takes images.", show_default="digits")] = None,
    kind: Annotated[
        Literal["tensors", "encoded", "rest", "classify"] | None,
        typer.Option(help="Tensors or files over gRPC, tensors or files over REST.", show_default="tensors"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a request.", show_default="1")] = None,
    images: Annotated[
        Path | None, typer.Option(help="A file or a directory of them.", show_default="photographs of scikit-learn")
    ] = None,
    cached: Annotated[bool | None, typer.Option("--cached", help="Let the server's cache answer.")] = None,
    tenants: Annotated[
        Path | None, typer.Option(help="A JSON file of callers with their keys and shares.", show_default="one key")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second; with --find-max the first tried.", show_default="50")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds of a run.", show_default="10")] = None,
    warmup: Annotated[float | None, typer.Option(help="Seconds before it.", show_default="2")] = None,
    arrivals: Annotated[Literal["poisson", "constant"] | None, typer.Option(show_default="poisson")] = None,
    shape: Annotated[
        Literal["steps", "spike", "soak", "sine"] | None,
        typer.Option(help="How the rate changes; --rate is its peak.", show_default="not at all"),
    ] = None,
    slo: Annotated[str | None, typer.Option(help="What must hold: p99=50ms, or p50=10ms,p99=50ms,errors=0.1%.")] = None,
    find_max: Annotated[
        bool | None, typer.Option("--find-max", help="Search the highest rate that holds the SLO.")
    ] = None,
    max_rate: Annotated[float | None, typer.Option(help="None higher is tried.", show_default="10000")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds of a request.", show_default="10")] = None,
    connections: Annotated[int | None, typer.Option(help="To the server.", show_default="8")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that make the load.", show_default="1")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go.", show_default=".tidegate/load")] = None,
) -> None:
    """Send requests at a rate that does not wait for answers, and report latency from their intended start.

    Exits with 1 where the SLO is not held. The key is that of TIDEGATE_LOAD_KEY, or the development key.
    """
    require_locust()
    given = dict(
        model=model,
        kind=kind,
        batch_size=batch_size,
        images=images,
        cached=cached,
        tenants=tenants,
        rate=rate,
        duration_s=duration,
        warmup_s=warmup,
        arrivals=arrivals,
        shape=shape,
        slo=slo,
        find_max=find_max,
        max_rate=max_rate,
        deadline_s=deadline,
        connections=connections,
        workers=workers,
        out=out,
    )
    environment = _server(target) | {
        PREFIX + name.upper(): str(value) for name, value in given.items() if value is not None
    }
    raise typer.Exit(subprocess.run([sys.executable, "-P", "-m", "loadtest"], env=environment, check=False).returncode)


def require_locust() -> None:
    """Refuse where there is none, as in an install that only serves."""
    if find_spec("locust") is None:
        raise CommandError("load tests need Locust: `make install` installs it")


def _server(target: str | None) -> dict[str, str]:
    """The environment of the load, with where the server is and a key."""
    from tidegate.client import find_server
    from tidegate.settings import inherited_environment

    environment = TIMERS | inherited_environment()
    if target is not None:
        if PREFIX + "KEY" not in environment:
            raise BadInput(f"{PREFIX}KEY: set it to an API key of {target}")
        return environment | {PREFIX + name: f"{target}:{port}" for name, port in _PORTS.items()}
    if PREFIX + "GRPC" in environment:
        return environment
    server = find_server()
    found = {"GRPC": server.grpc, "HTTP": server.http, "METRICS": server.metrics, "KEY": server.key}
    if (trust := server.tls) is not None:
        files = {"CA": trust.certificate, "CERTIFICATE": trust.client_certificate, "KEY": trust.client_key}
        found |= {"TLS": "true", "TLS_NAME": trust.name()}
        found |= {f"TLS_{name}": str(path) for name, path in files.items() if path is not None}
    return {PREFIX + name: value for name, value in found.items()} | environment
