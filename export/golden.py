"""A few images and what the eager model makes of them, kept in a version to compare a running server with."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import Card, Preprocessing

GOLDEN = "golden.npz"

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]

_OF_INPUT_SIZE = 8
_LARGER = 4
# Neither whole nor equal, so that another filter, another crop or a swap of height and width shows.
_ENLARGEMENT = (1.7, 2.3)
# A filter that skips pixels where it should average them takes some of this for the picture.
_GRAIN = 24


@dataclass(frozen=True, slots=True)
class GoldenImages:
    """Images, as files, and their scores.

    Attributes:
        files: N PNG files.
        scores: (N, K), the eager model's, of the images as training's preprocessing fits them to its input.
    """

    files: tuple[bytes, ...]
    scores: Scores

    @classmethod
    def of(
        cls,
        card: Card,
        images: Pixels,
        fit: Callable[[Pixels, Preprocessing], Pixels],
        score: Callable[[Pixels], Scores],
    ) -> Self:
        """Take some images as they are, and enlarge others, so that serving has to scale them.

        Args:
            images: (N, H, W, 3), of the size of the model's input, none of which it was trained on.
            fit: Training's preprocessing, short of normalisation, of one image.
            score: The eager model: (N, H, W, 3) to (N, K).
        """
        pictures = [*images[:_OF_INPUT_SIZE], *map(_enlarged, images[-_LARGER:])]
        return cls(
            tuple(map(_png, pictures)), score(np.stack([fit(picture, card.preprocessing) for picture in pictures]))
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; nothing in it is executed."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            ends = np.cumsum(arrays["sizes"])[:-1]
            return cls(tuple(part.tobytes() for part in np.split(arrays["files"], ends)), arrays["scores"])

    def to_bytes(self) -> bytes:
        """The content of `golden.npz`; the same images give the same bytes."""
        file = io.BytesIO()
        sizes = np.array([len(each) for each in self.files], np.int64)
        np.savez(file, files=np.frombuffer(b"".join(self.files), np.uint8), sizes=sizes, scores=self.scores)
        return file.getvalue()

    def pixels(self, index: int) -> Pixels:
        """A picture, (H, W, 3)."""
        with Image.open(io.BytesIO(self.files[index]), formats=("PNG",)) as image:
            return np.asarray(image)


def _enlarged(image: Pixels) -> Pixels:
    height, width = (round(size * factor) for size, factor in zip(image.shape[:2], _ENLARGEMENT, strict=True))
    large = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = np.random.default_rng(0).integers(-_GRAIN, _GRAIN, large.shape, endpoint=True)
    return np.clip(large + grain, 0, 255).astype(np.uint8)


def _png(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
