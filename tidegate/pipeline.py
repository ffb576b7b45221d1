"""`tidegate train` and `tidegate export`, with progress."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contract.formats import Target
from contract.manifest import Manifest
from export import pipeline
from export.candidates import refusals
from export.errors import CheckpointInvalid, ExportError, OptionsInvalid, TrackingFailed
from export.options import CONFIG, ExportOptions, read_config
from export.report import write_report
from export.settings import ExportSettings
from export.sources.remote import fetch
from export.tracking import log_export
from tidegate.errors import BadInput, CommandError, bad_settings
from training.errors import DataInvalid
from training.errors import TrackingFailed as TrainingTrackingFailed
from training.run import Epoch
from training.run import train_digits as run_training
from training.settings import TrainingSettings


def train_digits(output: Path | None) -> None:
    """Train and say how good it is.

    Raises:
        BadInput: A setting or the data is wrong.
        CommandError: The run could not be logged.
    """
    try:
        settings = TrainingSettings() if output is None else TrainingSettings(output=output)
    except ValidationError as error:
        raise bad_settings(error) from error
    console = Console()
    started = time.monotonic()
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[accuracy]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=settings.max_epochs, accuracy="")

        def on_epoch(epoch: Epoch) -> None:
            progress.update(task, completed=epoch.number, accuracy=f"validation {epoch.validation_accuracy:.2%}")

        try:
            result = run_training(settings, on_epoch)
        except DataInvalid as error:
            raise BadInput(str(error)) from error
        except TrainingTrackingFailed as error:
            raise CommandError(str(error)) from error
    console.print(
        f"{result.checkpoint}: test accuracy {result.test_accuracy:.2%}, {time.monotonic() - started:.0f} s, "
        f"MLflow run {result.run_id}",
        soft_wrap=True,
    )
    if result.registered is not None:
        console.print(f"registered as {result.registered}", soft_wrap=True)


def export_model(config: Path | None, given: Mapping[str, Any]) -> None:
    """Export, print how exact and how fast each candidate is, and write the report.

    Args:
        config: A tidegate.yaml; None: the one in the working directory, where no source is given.
        given: Options of the command line, which go before those of the file.

    Raises:
        BadInput: The options or the source are wrong.
        CommandError: Nothing was published.
    """
    try:
        settings = ExportSettings()
    except ValidationError as error:
        raise bad_settings(error) from error
    try:
        options = _options(config, given)
        manifest = _export(options, settings)
    except (CheckpointInvalid, OptionsInvalid) as error:
        raise BadInput(str(error)) from error
    except ExportError as error:
        raise CommandError(str(error)) from error
    _show(manifest, options, settings)


def _options(config: Path | None, given: Mapping[str, Any]) -> ExportOptions:
    if config is None and "source" not in given:
        if not CONFIG.is_file():
            raise OptionsInvalid(f"name a SOURCE, or write one into {CONFIG}")
        config = CONFIG
    if config is None:
        return ExportOptions.of(dict(given))
    return ExportOptions.of({**read_config(config), **given}, str(config))


def _export(options: ExportOptions, settings: ExportSettings) -> Manifest:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    for candidate, reason in refusals(options).items():
        console.print(f"{candidate} is left out: {reason}", soft_wrap=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        return pipeline.export_model(
            options,
            fetch=lambda source, directory: fetch(source, directory, settings),
            on_step=lambda step: progress.update(task, description=escape(step)),
        ).manifest


def _show(manifest: Manifest, options: ExportOptions, settings: ExportSettings) -> None:
    console, errors = Console(), Console(stderr=True)
    console.print(_exactness(manifest))
    if (speed := _speed(manifest)) is not None:
        console.print()
        console.print(speed)
    elif options.target is Target.GPU:
        console.print("nothing was measured: this export is for a GPU")
    for candidate, trial in manifest.candidates.items():
        if trial.dropped is not None:
            errors.print(f"{candidate} is not in the version: {escape(trial.dropped)}", soft_wrap=True)
    console.print(f"config.pbtxt serves {manifest.served}: {manifest.choice}", soft_wrap=True)
    try:
        report: Path | None = write_report(manifest, settings.state_dir / "reports")
        console.print(f"report: {report}", soft_wrap=True)
    except OSError as error:
        report = None
        errors.print(f"no report: {error.filename}: {error.strerror}", soft_wrap=True)
    try:
        run_id = log_export(manifest, report, tracking_uri=settings.tracking_uri)
        console.print(f"MLflow run {run_id}")
    except TrackingFailed as error:
        errors.print(f"not logged to MLflow: {escape(str(error))}", soft_wrap=True)
    console.print(
        f"{manifest.model} version {manifest.version} is in {escape(options.publish)}; "
        f"`tidegate models load {manifest.model}` has a running server take it.",
        soft_wrap=True,
    )


def _exactness(manifest: Manifest) -> Table:
    table = Table("candidate", "max error", "mean error", "same label", "accuracy", box=None, pad_edge=False)
    for name, trial in manifest.candidates.items():
        found = trial.verification
        if found is None:
            table.add_row(name, "-", "-", "-", "-")
            continue
        accuracy = "-" if found.accuracy is None else f"{found.accuracy:.2%}"
        errors = (f"{found.max_abs_error:.1e}", f"{found.mean_abs_error:.1e}")
        table.add_row(name, *errors, f"{found.top1_agreement:.2%}", accuracy)
    return table


def _speed(manifest: Manifest) -> Table | None:
    """Images a second by batch size; the best of these, and its latency."""
    measured = {name: trial for name, trial in manifest.candidates.items() if trial.best is not None}
    if not measured:
        return None
    sizes = sorted({point.batch_size for trial in measured.values() for point in trial.speed})
    columns = ("images/s at batch", *map(str, sizes), "best", "p50 ms", "p99 ms")
    table = Table(*columns, box=None, pad_edge=False)
    for name, trial in measured.items():
        speeds = {point.batch_size: f"{point.images_per_s:.1f}" for point in trial.speed}
        best = max(trial.speed, key=lambda point: point.images_per_s)
        latencies = (str(best.batch_size), f"{best.p50_ms:.1f}", f"{best.p99_ms:.1f}")
        table.add_row(name, *(speeds.get(size, "-") for size in sizes), *latencies)
    return table
