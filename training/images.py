"""Labelled images in memory, and the dataset that transforms them one by one."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import albumentations as A
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset

from training.errors import DataInvalid


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images and their classes.

    Attributes:
        images: (N, H, W, 3), RGB, 0..255.
        labels: (N,), the index of the class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            DataInvalid: The file is missing, or does not hold as many labels as images of (H, W, 3).
        """
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                loaded = cls(arrays["images"], arrays["labels"])
        except OSError as error:
            raise DataInvalid(f"{path}: {error.strerror}") from error
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataInvalid(f"{path}: not an .npz file of images and labels: {error}") from error
        images, labels = loaded.images, loaded.labels
        expected = (len(labels), *images.shape[1:3], 3)
        if images.dtype != np.uint8 or images.shape != expected or labels.dtype != np.int64:
            found = f"{images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
            raise DataInvalid(f"{path}: images and labels are {found}, not uint8 (N, H, W, 3) and int64 (N,)")
        return loaded

    def save(self, path: Path) -> None:
        """Write an .npz file; the same images give the same bytes."""
        np.savez_compressed(path, images=self.images, labels=self.labels)

    def split(self, share: float, seed: int) -> tuple[Self, Self]:
        """Hold back `share` of the images, with the same share of every class.

        Returns:
            What stays, and what is held back.
        """
        images, held_images, labels, held_labels = train_test_split(
            self.images, self.labels, test_size=share, stratify=self.labels, random_state=seed
        )
        return type(self)(images, labels), type(self)(held_images, held_labels)


class TransformedImages(Dataset[tuple[Tensor, int]]):
    """Items are a (3, H, W) float tensor and its class."""

    def __init__(self, data: LabelledImages, transform: A.Compose) -> None:
        self._data = data
        self._transform = transform

    def __len__(self) -> int:
        return len(self._data.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: Tensor = self._transform(image=self._data.images[index])["image"]
        return image, int(self._data.labels[index])
