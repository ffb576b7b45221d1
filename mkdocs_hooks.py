"""What the reference says is written by the code it is about, when the documentation is built.

A line `{{ cli }}`, `{{ errors }}` or `{{ metrics }}` of a page becomes that part of the reference.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
import typer.cli
import typer.main
from prometheus_client import CollectorRegistry

from gateway import errors, metrics
from gateway.errors import ErrorKind, GatewayError
from gateway.rest.status import STATUS as HTTP_STATUS
from gateway.rpc.status import STATUS as GRPC_STATUS
from tidegate.cli import app

_MARK = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with every page.

    Raises:
        KeyError: A page asks for what is not made here.
    """
    return _MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


def cli() -> str:
    """Every command with its arguments and options, from Typer."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="tidegate"), name="tidegate")
    # The page has a title of its own.
    return text.partition("\n")[2].replace("```console", "```text").strip()


def error_table() -> str:
    """Every kind with its statuses and meaning."""
    meanings = {error.kind: error.__doc__ or "" for error in _errors()}
    rows = []
    for kind in ErrorKind:
        meaning = " ".join(meanings[kind].partition("Attributes:")[0].split())
        rows.append(f"| `{kind.value}` | {HTTP_STATUS[kind]} | {GRPC_STATUS[kind].name} | {meaning} |")
    return "\n".join(["| kind | HTTP | gRPC | |", "|---|---|---|---|", *rows])


def metric_table() -> str:
    """Every instrument of the gateway with its labels."""
    registry = CollectorRegistry()
    for made in _instruments():
        made(registry)
    rows = []
    for collector in set(registry._names_to_collectors.values()):
        (family,) = collector.collect()
        # The library tells no one which labels an instrument has.
        labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(["| metric | type | labels | |", "|---|---|---|---|", *sorted(rows)])


def _instruments() -> Iterator[Callable[[CollectorRegistry], object]]:
    """The classes of gateway/metrics that are made of a registry alone."""
    for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name:
                parameters = inspect.signature(value).parameters
                if list(parameters) == ["registry"]:
                    yield value


def _errors() -> Iterator[type[GatewayError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, GatewayError) and value is not GatewayError:
            yield value


PARTS: dict[str, Callable[[], str]] = {"cli": cli, "errors": error_table, "metrics": metric_table}
