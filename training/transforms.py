"""Albumentations pipelines from a card's preprocessing."""

from functools import partial
from typing import Any

import albumentations as A
import numpy as np
from albumentations.pytorch import ToTensorV2
from numpy.typing import NDArray
from PIL import Image

from contract.card import Preprocessing

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def evaluation_transform(preprocessing: Preprocessing) -> A.Compose:
    """What serving does to a photograph: (H, W, 3) uint8 to a normalised (3, height, width) float tensor."""
    return A.Compose([*_fitting(preprocessing), *_normalising(preprocessing)])


def training_transform(preprocessing: Preprocessing, seed: int) -> A.Compose:
    """`evaluation_transform` with small turns, shifts and changes of size and light between fitting and normalising."""
    augmentation = [
        A.Affine(rotate=(-12, 12), translate_percent=(-0.08, 0.08), scale=(0.9, 1.1), shear=(-6, 6), p=0.8),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.3),
    ]
    return A.Compose([*_fitting(preprocessing), *augmentation, *_normalising(preprocessing)], seed=seed)


def fit(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Scale and cut an image to the size of the model's input.

    Args:
        image: (H, W, 3), RGB, 0..255.

    Returns:
        (height, width, 3).
    """
    height, width = image.shape[:2]
    size = (preprocessing.width, preprocessing.height)
    if preprocessing.shorter_side is not None:
        factor = preprocessing.shorter_side / min(height, width)
        size = (round(width * factor), round(height * factor))
    picture = Image.fromarray(image)
    if picture.size != size:
        picture = picture.resize(size, _RESAMPLING[preprocessing.interpolation])
    left, top = (size[0] - preprocessing.width) // 2, (size[1] - preprocessing.height) // 2
    return np.asarray(picture)[top : top + preprocessing.height, left : left + preprocessing.width]


def _fitting(preprocessing: Preprocessing) -> list[A.BasicTransform]:
    # Serving decodes and scales with Pillow, whose antialiasing OpenCV's filters lack.
    return [A.Lambda(image=partial(_fit_one, preprocessing=preprocessing), name="fit", p=1.0)]


def _fit_one(image: NDArray[np.uint8], preprocessing: Preprocessing, **_: Any) -> NDArray[np.uint8]:
    return fit(image, preprocessing)


def _normalising(preprocessing: Preprocessing) -> list[A.BasicTransform]:
    return [A.Normalize(mean=preprocessing.mean, std=preprocessing.std, max_pixel_value=255.0), ToTensorV2()]
