"""Real photographs to send: the caller's own, or pieces of two that come with scikit-learn."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from loadtest.errors import BadLoad

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
_JPEG_QUALITY = 90
_PIECE = 224


def arrays(images: Path | None, count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Pictures for tensors, each (height, width, 3), RGB.

    Raises:
        BadLoad: There are none.
    """
    pictures = [_open(path) for path in _paths(images)[:count]]
    if images is None:
        pictures = _pieces(pictures, count, height, width)
    return [np.asarray(picture.resize((width, height)), np.uint8) for picture in pictures]


def files(images: Path | None, count: int) -> list[bytes]:
    """Image files as they are, or pieces of 224×224 as JPEG.

    Raises:
        BadLoad: There are none.
    """
    paths = _paths(images)
    if images is not None:
        return [path.read_bytes() for path in paths[:count]]
    return [_jpeg(piece) for piece in _pieces([_open(path) for path in paths], count, _PIECE, _PIECE)]


def _paths(images: Path | None) -> list[Path]:
    if images is None:
        # Not imported: that takes a second, and only its files are wanted.
        spec = find_spec("sklearn")
        if spec is None or not spec.submodule_search_locations:
            raise BadLoad("without --images there must be scikit-learn, whose photographs are sent then")
        images = Path(spec.submodule_search_locations[0]) / "datasets" / "images"
    found = [images] if images.is_file() else sorted(images.glob("*")) if images.is_dir() else []
    paths = [path for path in found if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise BadLoad(f"--images: {images} has no JPEG, PNG or WebP file")
    return paths


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise BadLoad(f"--images: {path} cannot be read as an image") from error


def _pieces(pictures: list[Image.Image], count: int, height: int, width: int) -> list[Image.Image]:
    """Pieces of the pictures at random places, always the same ones."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        high, wide = min(height, picture.height), min(width, picture.width)
        top, left = random.integers(picture.height - high + 1), random.integers(picture.width - wide + 1)
        found.append(picture.crop((int(left), int(top), int(left) + wide, int(top) + high)))
    return found


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
