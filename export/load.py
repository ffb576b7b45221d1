"""Loads a checkpoint without executing anything in it. The only module here that knows `training`."""

import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from contract.card import Card, Preprocessing
from contract.manifest import Artifact
from export.errors import CheckpointInvalid, one_line
from export.held_out import HeldOutImages
from training import transforms
from training.classifier import ImageClassifier
from training.digits import NAME as DIGITS
from training.digits import split_digits


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained model.

    Attributes:
        network: Normalised images (N, 3, H, W) to logits (N, K); in evaluation mode, on the CPU.
        sha256: Of the file.
        run_id: MLflow's, where the training run was logged.
    """

    network: nn.Module
    card: Card
    sha256: str
    run_id: str | None


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint that `training` wrote.

    Raises:
        CheckpointInvalid: The file is missing or no checkpoint, holds objects that loading would execute, has no card,
            or its layers are not those of its hyperparameters.
    """
    content = plain_data(path)
    for key in ("card", "hyper_parameters", "state_dict"):
        if key not in content:
            raise CheckpointInvalid(f"{path}: no {key}; train the model with training.classifier.ImageClassifier")
    try:
        classifier = ImageClassifier.from_checkpoint(content)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: {one_line(error)}") from error
    run_id = content.get("run_id")
    return Checkpoint(
        network=classifier.network,
        card=classifier.card,
        sha256=Artifact.of(path).sha256,
        run_id=run_id if isinstance(run_id, str) else None,
    )


def held_out_images(data_set: str) -> HeldOutImages | None:
    """The test images of a data set of ours; None where it is not one."""
    if data_set != DIGITS:
        return None
    _, test = split_digits()
    return HeldOutImages(test.images, test.labels)


def training_images(data_set: str, count: int) -> NDArray[np.uint8] | None:
    """The first training images (N, H, W, 3) of a data set of ours; None where it is not one."""
    if data_set != DIGITS:
        return None
    train, _ = split_digits()
    return train.images[:count]


def fit(picture: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) as training scales and cuts it, (height, width, 3)."""
    return transforms.fit(picture, preprocessing)


def plain_data(path: Path) -> dict[str, Any]:
    """What a file of torch.save holds, where that is tensors and plain data alone.

    Raises:
        CheckpointInvalid: It holds anything else, or is damaged or missing.
    """
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointInvalid(
            f"{path}: refused, as loading it could execute code: it holds objects other than tensors and plain data; "
            "save its hyperparameters as plain values"
        ) from error
    except (EOFError, LookupError, RuntimeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: not a PyTorch checkpoint: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointInvalid(f"{path}: holds a {type(content).__name__}, not a Lightning checkpoint")
    return content


def _check_archive(path: Path) -> None:
    """Check the checksums, which torch.load does not; this also keeps it from reading bare pickles."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointInvalid(f"{path}: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: not a PyTorch checkpoint: {one_line(error)}") from error
    if damaged:
        raise CheckpointInvalid(f"{path}: damaged at {damaged}; copy it anew from where it was trained")
