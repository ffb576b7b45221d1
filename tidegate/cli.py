"""`tidegate`: the command line. A command imports what it needs when it runs, so that `--help` is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidegate import callers, parts, traffic
from tidegate.errors import CommandError
from tidegate.load import load, require_locust

app = typer.Typer(
    help="Serve vision models at high throughput on NVIDIA Triton.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="Models: what is in the repository and what is served.", no_args_is_help=True)
app.add_typer(parts.app)
app.add_typer(callers.keys, name="keys")
app.add_typer(callers.tenants, name="tenants")
app.add_typer(models, name="models")
app.command()(load)
app.add_typer(traffic.app, name="traffic")


def main() -> None:
    """Run a command; a failure it foresaw is one line on standard error."""
    try:
        app()
    except CommandError as error:
        print(f"tidegate: {error}", file=sys.stderr)
        sys.exit(error.status)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tidegate {version('tidegate')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is usually not worth a line.")] = False,
) -> None:
    """Configure what every command shares."""
    from tidegate import logs

    logs.configure(verbose)


@app.command()
def up() -> None:
    """Serve the model repository: one Triton and the gateway in front of it, until Ctrl-C.

    Settings come from the environment: TIDEGATE_HTTP_PORT, TIDEGATE_GRPC_PORT, TIDEGATE_METRICS_PORT (0: a free port),
    TIDEGATE_HOST, TIDEGATE_STATE_DIR, TIDEGATE_MODEL_REPOSITORY, TIDEGATE_WORKERS, TIDEGATE_AUTH__MODE and more; the
    documentation lists them.
    """
    from tidegate.up import serve

    serve()


@app.command()
def gateway() -> None:
    """Serve one gateway worker in front of the Triton at TIDEGATE_UPSTREAM__ADDRESS."""
    from tidegate import worker

    worker.serve(worker.prepare())


@app.command()
def train(
    output: Annotated[
        Path | None, typer.Option(help="Where the checkpoint goes.", show_default="state directory")
    ] = None,
) -> None:
    """Train the demo model, `digits`, and log the run to MLflow."""
    from tidegate.pipeline import train_digits

    train_digits(output)


@app.command()
def export(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint, torchvision:NAME?seed=0, s3://BUCKET/KEY or mlflow:models:/NAME@ALIAS.",
            show_default="that of tidegate.yaml",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A tidegate.yaml with these options.", show_default="./tidegate.yaml, without SOURCE"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="its card's")] = None,
    module: Annotated[
        str | None, typer.Option(help="package.mod:Class of a LightningModule whose weights SOURCE holds.")
    ] = None,
    input_: Annotated[str | None, typer.Option("--input", help="Its input, for example 3x224x224.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of the channels, for example 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Of the channels.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A file with one label a line.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Images it takes at once.")] = None,
    formats: Annotated[
        str | None, typer.Option(help="Of torchscript,onnx,openvino,tensorrt.", show_default="all but tensorrt")
    ] = None,
    int8: Annotated[bool | None, typer.Option("--int8", help="Try OpenVINO in 8 bits too.")] = None,
    target: Annotated[
        str | None, typer.Option(help="What config.pbtxt is for: cpu or gpu.", show_default="cpu")
    ] = None,
    serve: Annotated[
        str | None, typer.Option(help="The format config.pbtxt serves.", show_default="the fastest")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A directory of photographs to calibrate INT8 and to verify on.")
    ] = None,
    publish: Annotated[
        str | None, typer.Option(help="A directory or s3:// address.", show_default="model_repository")
    ] = None,
    measure_s: Annotated[
        float | None, typer.Option(help="Seconds to time each format at each batch size.", show_default="1")
    ] = None,
) -> None:
    """Export a model, verify and measure each format, and publish what agrees as a new version."""
    from tidegate.pipeline import export_model

    given = dict(
        source=source,
        name=name,
        module=module,
        input=input_,
        mean=mean,
        std=std,
        labels=labels,
        max_batch_size=max_batch_size,
        formats=formats,
        int8=int8,
        target=target,
        serve=serve,
        calibration=calibration,
        publish=publish,
        measure_s=measure_s,
    )
    export_model(config, {field: value for field, value in given.items() if value is not None})


@app.command()
def tune(
    model: Annotated[str, typer.Argument(help="An exported model: NAME for tensors, NAME_encoded for photographs.")],
    slo: Annotated[str, typer.Option(help="What must hold: p99=80ms, or p50=20ms,p99=80ms,errors=0.1%.")],
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, max=10_000, help="Requests a second.", show_default="as many as hold the SLO"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_024, help="Images in a request.")] = 1,
    images: Annotated[
        Path | None, typer.Option(help="A file or a directory of them.", show_default="photographs of scikit-learn")
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds of a run.")] = 4,
    budget: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds of the search; a comparison follows.")
    ] = 300,
    repeats: Annotated[int, typer.Option(min=3, max=100, help="Of the comparison.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Where the report goes.", show_default=".tidegate/tune")] = None,
) -> None:
    """Search how a model is best run on this machine, and write it into its config if it beats what is there.

    A copy of the live version is served on free ports and loaded through a gateway of its own; nothing of the model changes
    until something has won, and Ctrl-C leaves it as it was.
    """
    require_locust()
    from tidegate.tune import Asked
    from tidegate.tune import tune as run

    run(Asked(model, slo, rate, batch_size, images, duration, budget, repeats, out))


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.")],
    model: Annotated[str, typer.Option(help="The model to ask.")] = "digits",
    top_k: Annotated[int, typer.Option(min=1, max=1_000, help="Labels for each image.")] = 3,
) -> None:
    """Classify photographs through a running `tidegate up`."""
    from tidegate.client import classify_images

    classify_images(images, model, top_k)


@app.command()
def doctor() -> None:
    """Check that this machine can serve; each line says what to do."""
    from tidegate.doctor import examine

    examine()


@app.command()
def audit(limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest entries shown.")] = 50) -> None:
    """List what administrators did to keys, tenants and models: who, what, when, and the result."""
    from tidegate.audit import show

    show(limit)


@models.command("list")
def list_models() -> None:
    """List the models of the repository with their versions, figures and, where one runs, the server's state."""
    from tidegate.models import show_all

    show_all()


@models.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model of the repository.")],
    version: Annotated[int | None, typer.Argument(min=1, help="One of its versions.", show_default="live")] = None,
) -> None:
    """Show what a version was made from, how exact it is, and the digests of its files."""
    from tidegate.models import show

    show(name, version)


@models.command("verify")
def verify_models(
    name: Annotated[str | None, typer.Argument(help="A model of the repository.", show_default="all")] = None,
) -> None:
    """Digest every file anew and compare with the manifests; names each file that is wrong."""
    from tidegate.models import verify

    verify(name)


@models.command("load")
def load_model(
    name: Annotated[str, typer.Argument(help="A model of the repository.")],
    check: Annotated[
        bool, typer.Option(help="Send the golden images; put an earlier version back if they fail.")
    ] = True,
) -> None:
    """Have the running server load a model, or its newest version, together with its `_encoded` twin."""
    from tidegate.live import load

    load(name, check=check)


@models.command("check")
def check_model(
    name: Annotated[str, typer.Argument(help="A model of the repository.")],
    version: Annotated[int | None, typer.Argument(min=1, help="One of its versions.", show_default="live")] = None,
) -> None:
    """Send a version's golden images through the running server and compare with the eager model."""
    from tidegate.live import check

    check(name, version)


@models.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(help="A model of the repository.")],
    version: Annotated[int, typer.Argument(min=1, help="The version that answers requests which name none.")],
) -> None:
    """Make a version live, in the repository and in the running server."""
    from tidegate.live import promote

    promote(name, version)


@models.command("rollback")
def roll_back_model(name: Annotated[str, typer.Argument(help="A model of the repository.")]) -> None:
    """Make the version before the live one live, in the repository and in the running server."""
    from tidegate.live import roll_back

    roll_back(name)


@models.command("gc")
def collect_versions(
    name: Annotated[str, typer.Argument(help="A model of the repository.")],
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay.")],
) -> None:
    """Remove old versions; those that are served stay."""
    from tidegate.live import collect

    collect(name, keep)
