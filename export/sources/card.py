"""The card of a model: its own, with what was asked for put over it, or made from that alone."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.card import Card, Preprocessing
from export.errors import OptionsInvalid
from export.options import ExportOptions


def card_of(options: ExportOptions, own: Card | None) -> Card:
    """The card to export with.

    Args:
        own: What the source brought; None: the options must say all that a card needs.

    Raises:
        OptionsInvalid: Something is missing, or is no card together.
    """
    if own is None:
        wanted = {"name": options.name, "input": options.input, "labels": options.labels}
        if missing := [f"--{name}" for name, value in wanted.items() if value is None]:
            raise OptionsInvalid(f"{options.source}: brings no card; give {', '.join(missing)}")
    fields: dict[str, Any] = {} if own is None else own.model_dump()
    if options.name is not None:
        fields["name"] = options.name
    if options.labels is not None:
        fields["labels"] = read_labels(options.labels)
    if options.max_batch_size is not None:
        fields["batching"] = {**fields.get("batching", {}), "max_batch_size": options.max_batch_size}
    fields["preprocessing"] = _preprocessing(options, own.preprocessing if own else None)
    try:
        return Card.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise OptionsInvalid(f"{options.source}: card: {field}: {first['msg']}") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line; blank lines at the end do not count.

    Raises:
        OptionsInvalid: The file cannot be read as UTF-8 text.
    """
    try:
        return tuple(path.read_text(encoding="utf-8").rstrip().splitlines())
    except OSError as error:
        raise OptionsInvalid(f"labels: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionsInvalid(f"labels: {path}: not UTF-8") from error


def _preprocessing(options: ExportOptions, own: Preprocessing | None) -> dict[str, Any]:
    fields: dict[str, Any] = {} if own is None else own.model_dump()
    if options.input is not None:
        _, fields["height"], fields["width"] = options.input
        if own is not None and own.shorter_side is not None:
            # What is cut away around the centre keeps its share.
            scale = max(fields["height"] / own.height, fields["width"] / own.width)
            fields["shorter_side"] = round(own.shorter_side * scale)
    for field in ("mean", "std"):
        if (value := getattr(options, field)) is not None:
            fields[field] = value
    return fields
