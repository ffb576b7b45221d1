"""A LightningModule of the user's own: its class is imported, its weights are read as plain data."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from contract.card import Card
from contract.manifest import Source
from export.errors import CheckpointInvalid, OptionsInvalid, one_line
from export.load import plain_data
from export.options import ExportOptions
from export.sources.card import card_of
from export.sources.source import SourceFile, SourceModel


def load_module(file: SourceFile, options: ExportOptions, import_path: str) -> SourceModel:
    """Build the module from the checkpoint's hyperparameters and fill in its weights.

    Args:
        import_path: `package.mod:Class`. Importing it executes the user's code; the checkpoint never executes any.

    Raises:
        OptionsInvalid: There is no such class, or too little is known for a card.
        CheckpointInvalid: The checkpoint is none, or not one of that class.
    """
    content = plain_data(file.path)
    if "state_dict" not in content:
        raise CheckpointInvalid(f"{file.path}: no state_dict; save it with Lightning")
    # A checkpoint of LightningCLI notes under such names how it built the module.
    arguments = {key: value for key, value in content.get("hyper_parameters", {}).items() if not key.startswith("_")}
    try:
        network = _imported(import_path)(**arguments)
        network.load_state_dict(content["state_dict"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointInvalid(f"{file.path}: not a checkpoint of {import_path}: {one_line(error)}") from error
    own = _own_card(file.path, content.get("card"))
    run_id = file.run_id or content.get("run_id")
    source = Source(uri=file.uri, sha256=file.sha256, run_id=run_id if isinstance(run_id, str) else None)
    return SourceModel(network.eval(), card_of(options, own), source, data_set=own.name if own else "")


def _own_card(path: Path, content: Any) -> Card | None:
    try:
        return None if content is None else Card.model_validate(content)
    except ValidationError as error:
        raise CheckpointInvalid(f"{path}: card: {one_line(error)}") from error


def _imported(import_path: str) -> type[nn.Module]:
    module_name, _, class_name = import_path.partition(":")
    with _working_directory_importable():
        try:
            found = getattr(import_module(module_name), class_name, None)
        except ImportError as error:
            raise OptionsInvalid(f"module: {import_path}: {one_line(error)}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise OptionsInvalid(f"module: {import_path}: {module_name} has no LightningModule {class_name}")
    return found


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    # An installed command, unlike `python -m`, does not look there.
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
