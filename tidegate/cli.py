"""`tidegate`: the command line. A command imports what it needs when it runs, so that `--help` is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidegate import parts
from tidegate.errors import CommandError
from tidegate.load import load

app = typer.Typer(
    help="Serve vision models at high throughput on NVIDIA Triton.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys = typer.Typer(help="API keys: make, rotate, limit, list, revoke.", no_args_is_help=True)
tenants = typer.Typer(help="Tenants: who owns keys, and what they may use together.", no_args_is_help=True)
models = typer.Typer(help="Models: what is in the repository and what is served.", no_args_is_help=True)
app.add_typer(parts.app)
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")
app.add_typer(models, name="models")
app.command()(load)

_KeyId = Annotated[str, typer.Argument(help="The id: the part of the key between its underscores.")]
_TenantName = Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9 and -.")]
_Requests = Annotated[float | None, typer.Option(min=0.001, help="A second; no limit where it is not given.")]
_Images = Annotated[float | None, typer.Option(min=0.001, help="A second; no limit where it is not given.")]
_ImagesPerDay = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="A day of UTC; else no limit.")]
_InFlight = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="At once; else no limit.")]


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
    from tidegate.settings import gateway_settings, set_oldest_tls_of_grpc

    settings = gateway_settings()
    set_oldest_tls_of_grpc(settings.tls)

    import uvloop

    from gateway.server import run
    from gateway.tls import BadCertificate
    from tidegate.errors import bad_certificate

    try:
        uvloop.run(run(settings))
    except BadCertificate as error:
        raise bad_certificate(error) from error


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


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="infer, read or admin; may be repeated.", show_default="infer, read")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may name, or a glob; may be repeated.", show_default="all")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Who owns it.")] = None,
    days: Annotated[float | None, typer.Option(min=0, max=36_500, help="It expires after them; else never.")] = None,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Make an API key and show it, once."""
    from gateway.call import Allowance
    from tidegate.keys import create

    limits = Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight)
    create(name, scope or ["infer", "read"], model or ["*"], tenant, days, limits)


@keys.command("rotate")
def rotate_key(
    key_id: _KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=8_760, help="The old secret is good this long.")] = 24,
) -> None:
    """Give a key a new secret and show it, once; the old one is good for a while more."""
    from tidegate.keys import rotate

    rotate(key_id, overlap_hours)


@keys.command("limit")
def limit_key(
    key_id: _KeyId,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Put these limits in place of those a key has."""
    from gateway.call import Allowance
    from tidegate.keys import limit

    limit(key_id, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@keys.command("list")
def list_keys() -> None:
    """List the keys, revoked ones too; secrets are not kept."""
    from tidegate.keys import show_all

    show_all()


@keys.command("revoke")
def revoke_key(key_id: _KeyId) -> None:
    """End a key; running gateways refuse it within seconds."""
    from tidegate.keys import revoke

    revoke(key_id)


@tenants.command("create")
def create_tenant(
    name: _TenantName,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Make a tenant; its limits are what all its keys may use together."""
    from gateway.call import Allowance
    from tidegate.tenants import create

    create(name, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@tenants.command("limit")
def limit_tenant(
    name: _TenantName,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Put these limits in place of those a tenant has."""
    from gateway.call import Allowance
    from tidegate.tenants import limit

    limit(name, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@tenants.command("list")
def list_tenants() -> None:
    """List the tenants with their limits."""
    from tidegate.tenants import show_all

    show_all()


@tenants.command("disable")
def disable_tenant(name: _TenantName) -> None:
    """Refuse every key of a tenant, until it is enabled again."""
    from tidegate.tenants import disable

    disable(name, True)


@tenants.command("enable")
def enable_tenant(name: _TenantName) -> None:
    """Take a tenant's keys again."""
    from tidegate.tenants import disable

    disable(name, False)


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
