"""What the commands that talk to a running `tidegate up` share: where it is, and the key."""

import json
from dataclasses import dataclass
from pathlib import Path

import httpx
import typer
from rich.console import Console
from rich.table import Table

from tidegate.errors import BadInput, CommandError
from tidegate.settings import gateway_settings
from tidegate.tls import ServerTrust

ENDPOINTS = "endpoints.json"
TLS = "tls"
DEV_KEY = "dev-key"

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where the server is, and how to get in.

    Attributes:
        http: host:port, as are `grpc` and `metrics`.
        key: The development key, which may do everything.
        tls: None: it speaks no TLS.
    """

    http: str
    grpc: str
    metrics: str
    key: str
    tls: ServerTrust | None


def find_server(state_dir: Path | None = None) -> RunningServer:
    """The server that a state directory belongs to.

    Args:
        state_dir: None: that of the settings.

    Raises:
        CommandError: None runs.
    """
    state_dir = state_dir or gateway_settings().state_dir
    try:
        endpoints = json.loads((state_dir / ENDPOINTS).read_text())
        key = (state_dir / DEV_KEY).read_text()
    except FileNotFoundError as error:
        raise CommandError(
            f"no server runs with the state directory {state_dir}; start one with `tidegate up`"
        ) from error
    tls = ServerTrust.from_json(endpoints[TLS]) if TLS in endpoints else None
    addresses = {name: endpoints[name] for name in ("http", "grpc", "metrics")}
    return RunningServer(**addresses, key=key, tls=tls)


def running_server(state_dir: Path | None = None) -> httpx.Client:
    """A client of the server that a state directory belongs to.

    Args:
        state_dir: None: that of the settings.

    Raises:
        CommandError: None runs.
    """
    server = find_server(state_dir)
    headers = {"authorization": f"Bearer {server.key}"}
    scheme, verify = ("http", True) if server.tls is None else ("https", server.tls.context())
    return httpx.Client(
        base_url=f"{scheme}://{server.http}", headers=headers, timeout=_TIMEOUT_S, trust_env=False, verify=verify
    )


def post(client: httpx.Client, path: str, **body: object) -> httpx.Response:
    """Send a request.

    Raises:
        CommandError: It was refused, or the server is gone.
    """
    try:
        response = client.post(path, **body)  # type: ignore[arg-type]  # httpx's own keywords.
    except httpx.HTTPError as error:
        raise CommandError(f"the server at {client.base_url} does not answer: {error}") from error
    if response.is_success:
        return response
    # What follows the first line is where in a backend's Python it was raised.
    reason = response.json()["error"].partition("\n")[0]
    raise CommandError(f"{response.status_code}: {reason}")


def classify_images(images: list[Path], model: str, top_k: int) -> None:
    """Print a line an image: its best labels with their scores, or why it was not served."""
    for image in images:
        if not image.is_file():
            raise BadInput(f"{image}: no such file")
    files = [("files", (image.name, image.read_bytes())) for image in images]
    with running_server() as client:
        answer = post(client, f"/v1/models/{model}/classify", params={"top_k": top_k}, files=files).json()
    table = Table("image", "label", "score", "others", box=None, pad_edge=False)
    failed = False
    for image, result in zip(images, answer["results"], strict=True):
        if "error" in result:
            failed = True
            table.add_row(image.name, f"[red]{result['error']}[/red]")
            continue
        best, *others = result["predictions"]
        rest = ", ".join(f"{other['label']} {other['score']:.2f}" for other in others)
        table.add_row(image.name, best["label"], f"{best['score']:.2f}", rest)
    Console().print(table)
    if failed:
        raise typer.Exit(1)
