"""From the address of a source to the model."""

from pathlib import Path

import torch

from contract.manifest import Artifact, Source
from export.errors import CheckpointInvalid, OptionsInvalid, one_line
from export.load import load_checkpoint
from export.options import ExportOptions
from export.sources.card import card_of
from export.sources.module import load_module
from export.sources.remote import is_remote
from export.sources.source import Fetch, SourceFile, SourceModel
from export.sources.torchvision import SCHEME as TORCHVISION
from export.sources.torchvision import load_torchvision

# What a network raises when it is given images of another size than it was made for.
_SHAPE_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def load_source(options: ExportOptions, scratch: Path, fetch: Fetch) -> SourceModel:
    """Load a model, and see that it takes and returns what its card says.

    Args:
        scratch: Where a remote checkpoint is put.
        fetch: For the sources that are not on this machine.

    Raises:
        CheckpointInvalid: There is no model there, or it does not fit its card.
        OptionsInvalid: The address is not one, or too little is known for a card.
    """
    if options.source.startswith(TORCHVISION):
        if options.module is not None:
            raise OptionsInvalid(f"module: {options.source} needs none")
        model = load_torchvision(options)
    else:
        file = _file(options.source, scratch, fetch)
        model = _own(file, options) if options.module is None else load_module(file, options, options.module)
    _check_fits(model)
    return model


def _file(source: str, scratch: Path, fetch: Fetch) -> SourceFile:
    if is_remote(source):
        return fetch(source, scratch)
    path = Path(source)
    if not path.is_file():
        raise CheckpointInvalid(f"{path}: no such file; `tidegate train` makes one")
    return SourceFile(path, _portable(path), Artifact.of(path).sha256)


def _own(file: SourceFile, options: ExportOptions) -> SourceModel:
    loaded = load_checkpoint(file.path)
    source = Source(uri=file.uri, sha256=file.sha256, run_id=file.run_id or loaded.run_id)
    return SourceModel(loaded.network, card_of(options, loaded.card), source, data_set=loaded.card.name)


def _check_fits(model: SourceModel) -> None:
    size = model.card.preprocessing
    expected = (2, len(model.card.labels))
    try:
        with torch.inference_mode():
            scores = model.network(torch.zeros(2, 3, size.height, size.width))
    except _SHAPE_ERRORS as error:
        raise CheckpointInvalid(
            f"{model.source.uri}: the model does not take images of {size.height}×{size.width}: {one_line(error)}"
        ) from error
    found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
    if found != expected:
        raise CheckpointInvalid(
            f"{model.source.uri}: the card has {len(model.card.labels)} labels, so that two images should give scores "
            f"{expected}; the model returns {found}"
        )


def _portable(path: Path) -> str:
    """A name for the checkpoint that says nothing of the machine."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()).as_posix() if resolved.is_relative_to(Path.cwd()) else path.name
