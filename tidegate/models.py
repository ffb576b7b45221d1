"""`tidegate models list`, `show` and `verify`: what is in the repository, and what a running server makes of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table

from contract.card import ENCODED_SUFFIX
from contract.errors import ContractError, ManifestInvalid
from export.errors import ExportError
from export.locations import open_store
from export.store import Store
from export.versions import Versions
from tidegate.client import post, running_server
from tidegate.errors import CommandError
from tidegate.settings import up_settings


@contextmanager
def repository() -> Iterator[Store]:
    """The repository of TIDEGATE_MODEL_REPOSITORY; what goes wrong in the block with it ends the command."""
    try:
        yield open_store(up_settings().model_repository)
    except (ContractError, ExportError) as error:
        raise CommandError(str(error)) from error


def show_all() -> None:
    """Print a table of the versions."""
    states = _states()
    table = Table("model", "version", "format", "accuracy", "served", "state", box=None, pad_edge=False)
    with repository() as store:
        for name in store.directories():
            versions = Versions(store, name)
            served, live = versions.served, versions.live
            for version in versions.existing:
                role = "live" if version == live else "yes" if version in served else "no"
                state = states.get((name, str(version)), "-")
                table.add_row(name, str(version), *_figures(versions, version), role, state)
    Console().print(table)


def show(name: str, version: int | None) -> None:
    """Print what a version was made from, how exact it is, and the digests of its files.

    Args:
        version: None: the live one.
    """
    with repository() as store:
        versions = Versions(store, name)
        manifest = versions.manifest(version or versions.live or 1)
    facts = Table(show_header=False, box=None, pad_edge=False)
    accuracy = manifest.test_accuracy
    for key, value in (
        ("model", f"{manifest.model} {manifest.version}"),
        ("made", f"{manifest.created_at:%Y-%m-%d %H:%M} UTC"),
        ("source", manifest.source.uri),
        ("checkpoint", manifest.source.sha256),
        ("run", manifest.source.run_id or "-"),
        ("accuracy", "-" if accuracy is None else f"{accuracy:.2%}"),
        ("serves", manifest.default_format.value),
        ("tools", ", ".join(f"{tool} {number}" for tool, number in manifest.toolchain.items())),
    ):
        facts.add_row(key, value)
    errors = Table("format", "max error", "mean error", "same label", "images", box=None, pad_edge=False)
    for format_, found in manifest.formats.items():
        agreement = f"{found.top1_agreement:.2%}"
        figures = (f"{found.max_abs_error:.1e}", f"{found.mean_abs_error:.1e}", agreement, str(found.images))
        errors.add_row(format_.value, *figures)
    console = Console()
    for table in (facts, errors):
        console.print(table)
        console.print()
    for path, artifact in manifest.artifacts.items():
        typer.echo(f"{artifact.sha256}  {path}")


def verify(name: str | None) -> None:
    """Digest every file of every version anew; print a line a version, or one for each file that is wrong."""
    wrong = False
    with repository() as store:
        names = store.directories()
        for each in [name] if name else names:
            # The manifest of NAME lists the files of NAME_encoded too.
            if each.removesuffix(ENCODED_SUFFIX) in set(names) - {each}:
                continue
            versions = Versions(store, each)
            if not versions.published:
                typer.echo(f"{each}: no version has a manifest")
            for version in versions.published:
                faults = versions.faults(version)
                wrong = wrong or bool(faults)
                for line in faults or [f"{each} {version}: as its manifest says"]:
                    typer.echo(line)
    if wrong:
        raise typer.Exit(1)


def _states() -> dict[tuple[str, str], str]:
    """State by model and version; empty where no server runs."""
    try:
        with running_server() as client:
            index = post(client, "/v2/repository/index").json()
    except CommandError:
        return {}
    return {(entry["name"], entry["version"]): _in_words(entry["state"], entry["reason"]) for entry in index}


def _in_words(state: str, reason: str) -> str:
    # What follows the first line is where in a backend's Python it was raised.
    return f"{state} {reason.splitlines()[0]}" if reason else state


def _figures(versions: Versions, version: int) -> tuple[str, str]:
    if version not in versions.published:
        return "-", "-"
    try:
        manifest = versions.manifest(version)
    except ManifestInvalid:
        return "unreadable", "-"
    accuracy = manifest.test_accuracy
    return manifest.default_format.value, "-" if accuracy is None else f"{accuracy:.2%}"
