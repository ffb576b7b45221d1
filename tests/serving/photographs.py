"""Image files of every kind, made in memory."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(width: int, height: int) -> Image.Image:
    """A smooth RGB picture: red grows to the right, green downwards, blue falls to the right."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def flat(colour: tuple[int, int, int], size: int = 16) -> NDArray[np.uint8]:
    """One colour, (size, size, 3)."""
    return np.full((size, size, 3), colour, np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scan_bomb(scans: int, between: bytes = b"") -> bytes:
    """A progressive JPEG of (16, 16) with empty scans behind its own ten, and something between any two of them."""
    file = io.BytesIO()
    Image.fromarray(flat((90, 90, 90), 16)).save(file, "JPEG", progressive=True)
    good = file.getvalue()
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"  # Of one component, every coefficient, nothing in it.
    return good[:-2] + (between + empty) * scans + good[-2:]
