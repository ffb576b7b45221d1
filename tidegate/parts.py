"""Commands that run one part alone; a container runs each of them."""

import typer

app = typer.Typer()


@app.command()
def triton() -> None:
    """Serve the model repository by Triton alone, for gateways elsewhere.

    Its gRPC listens at TIDEGATE_HOST:TIDEGATE_GRPC_PORT, its metrics at TIDEGATE_METRICS_PORT. It asks for no key: beyond
    loopback, the network must let only gateways reach it.
    """
    from tidegate.triton import serve

    serve()


@app.command()
def migrate() -> None:
    """Bring the database of keys to the newest schema; several at once take turns."""
    from tidegate.identity import migrate as run

    run()
