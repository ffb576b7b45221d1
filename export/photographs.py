"""Photographs to calibrate and verify on, from a directory or from scikit-learn, at the size a model takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from contract.card import Card, Preprocessing
from export.errors import VerificationFailed, one_line
from export.held_out import HeldOutImages
from export.load import fit

CALIBRATION_IMAGES = 300
_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
_MAX_HELD_OUT = 1_000
_HELD_OUT_SHARE = 0.2
# The shorter side of a crop, at least this share of the photograph's: less is blur.
_SMALLEST_CROP = 0.25


def from_directory(directory: Path, card: Card) -> tuple[NDArray[np.uint8], HeldOutImages]:
    """Read the photographs of a directory and those below it, and hold back a fifth, drawn by lot but always alike.

    They are labelled where every one lies in a folder that has the name of a label.

    Returns:
        Up to 300 to calibrate on, (N, H, W, 3); and what was held back, up to 1000 unless a batch is larger.

    Raises:
        VerificationFailed: There are too few, or one cannot be read.
    """
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES)
    least = max(2, card.batching.max_batch_size)
    held_out = max(least, min(_MAX_HELD_OUT, round(len(paths) * _HELD_OUT_SHARE)))
    if len(paths) <= held_out:
        raise VerificationFailed(f"{directory}: {len(paths)} photographs; give more than {held_out}")
    drawn = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]
    kept = drawn[held_out : held_out + CALIBRATION_IMAGES]
    held = HeldOutImages(_read(drawn[:held_out], card.preprocessing), _labels(drawn[:held_out], directory, card))
    return _read(kept, card.preprocessing), held


def sample_crops(preprocessing: Preprocessing, count: int, *, calibrating: bool) -> NDArray[np.uint8]:
    """Crops of scikit-learn's two photographs: squares of any size from any place, half of them mirrored.

    Args:
        calibrating: Crops of the left halves; else of the right ones, so that the two sets share no pixel.

    Returns:
        (N, H, W, 3), the same in every run.
    """
    random = np.random.default_rng(0)
    halves = []
    for photograph in load_sample_images().images:
        middle = photograph.shape[1] // 2
        halves.append(photograph[:, :middle] if calibrating else photograph[:, middle:])
    size = (preprocessing.width, preprocessing.height)
    crops = []
    for index in range(count):
        half = halves[index % len(halves)]
        shorter = min(half.shape[:2])
        side = int(random.integers(round(shorter * _SMALLEST_CROP), shorter, endpoint=True))
        top, left = (int(random.integers(0, length - side, endpoint=True)) for length in half.shape[:2])
        picture = Image.fromarray(half[top : top + side, left : left + side]).resize(size, Image.Resampling.BILINEAR)
        crops.append(np.asarray(ImageOps.mirror(picture) if random.random() < 0.5 else picture))
    return np.stack(crops)


def _read(paths: Sequence[Path], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    images = []
    for path in paths:
        try:
            with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VerificationFailed(f"{path}: {one_line(error)}; remove it") from error
        # At once: thousands of photographs at their own size do not fit into memory.
        images.append(fit(np.asarray(upright), preprocessing))
    return np.stack(images)


def _labels(paths: Sequence[Path], directory: Path, card: Card) -> NDArray[np.int64] | None:
    indices = {label: index for index, label in enumerate(card.labels)}
    folders = [path.relative_to(directory).parts[0] for path in paths]
    if not all(folder in indices for folder in folders):
        return None
    return np.array([indices[folder] for folder in folders], dtype=np.int64)
