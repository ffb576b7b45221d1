"""Photographs to model inputs: what is accepted, how it is decoded, and how it is scaled."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from contract.card import ImageLimits, Preprocessing
from serving.jpeg_scans import count_scans

Pixels = NDArray[np.uint8]

_FORMATS = ("JPEG", "PNG", "WEBP")
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A narrower picture would become enormous when its shorter side is scaled up.
_MAX_ASPECT_RATIO = 50
# JPEG is decoded at 1/2, 1/4 or 1/8 where that still leaves this many pixels for each one of the result, by side.
_DRAFT_MARGIN = 2


class ImageRefused(ValueError):
    """An image that is not served. The message is one line and safe to show."""


def prepare(encoded: bytes, preprocessing: Preprocessing, limits: ImageLimits) -> Pixels:
    """Decode a photograph into a model's input.

    The first frame is taken and turned as EXIF says. What is transparent is laid over white, other colour models and
    depths become 8-bit RGB, and embedded colour profiles are ignored.

    Args:
        encoded: A JPEG, PNG or WebP file.
        limits: Checked before anything is decoded.

    Returns:
        (height, width, 3), RGB, 0..255, C-contiguous.

    Raises:
        ImageRefused: It is too large, no such file, truncated or damaged.
    """
    with checked(encoded, limits) as image:
        try:
            upright = _load_upright(image, preprocessing)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageRefused(f"truncated or damaged {_kind(image)}: {error}") from error
    return np.asarray(_scale(_to_rgb(upright), preprocessing))


def checked(encoded: bytes, limits: ImageLimits) -> Image.Image:
    """Open a file that keeps the limits, of which nothing is decoded yet.

    Raises:
        ImageRefused: It is over a limit, or no JPEG, PNG or WebP.
    """
    if len(encoded) > limits.max_bytes:
        raise ImageRefused(f"{len(encoded)} bytes, limit {limits.max_bytes}")
    image = _open(encoded)
    if image.width * image.height > limits.max_pixels:
        raise ImageRefused(f"{image.width}×{image.height} pixels, limit {limits.max_pixels}")
    if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
        raise ImageRefused(
            f"{image.width}×{image.height} pixels, limit of the longer side {_MAX_ASPECT_RATIO} times the shorter"
        )
    _check_structure(image, encoded, limits)
    return image


def _check_structure(image: Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > limits.max_frames:
        raise ImageRefused(f"{frames} frames, limit {limits.max_frames}")
    if isinstance(image, JpegImageFile) and count_scans(encoded, limits.max_scans) > limits.max_scans:
        raise ImageRefused(f"more than {limits.max_scans} scans")


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ImageRefused("not a JPEG, PNG or WebP image") from error
    except Image.DecompressionBombError as error:
        raise ImageRefused("too many pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageRefused(f"truncated or damaged image: {error}") from error


def _kind(image: Image.Image) -> str:
    # A JPEG with further pictures behind the first calls itself MPO.
    return {"PNG": "PNG", "WEBP": "WebP"}.get(image.format or "", "JPEG")


def _load_upright(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(orientation(image))
    # Nearest takes single pixels, which a draft has averaged.
    if isinstance(image, JpegImageFile) and preprocessing.interpolation != "nearest":
        _draft(image, preprocessing)
    image.load()
    return image if transposition is None else image.transpose(transposition)


def orientation(image: Image.Image) -> int:
    """What EXIF says of how the picture lies, 1 to 8, or any other number to be ignored."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError):
        # Metadata that cannot be read is no reason to refuse the picture.
        return 1


def _draft(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let libjpeg halve a much larger picture while it decodes, once or more."""
    # By the shorter and the longer side, because orientation may swap the two.
    shorter = preprocessing.shorter_side or max(preprocessing.height, preprocessing.width)
    scale = _DRAFT_MARGIN * shorter / min(image.size)
    if scale < 1:
        image.draft(None, (round(image.width * scale), round(image.height * scale)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits: Pillow would clip to 255 where the high byte is meant.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def scaled_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """The width and height a picture of such is scaled to, before its centre is cut out."""
    if preprocessing.shorter_side is None:
        return preprocessing.width, preprocessing.height
    ratio = preprocessing.shorter_side / min(size)
    return round(size[0] * ratio), round(size[1] * ratio)


def _scale(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    resampling = _FILTERS[preprocessing.interpolation]
    size = (preprocessing.width, preprocessing.height)
    if preprocessing.shorter_side is None:
        return image.resize(size, resampling)
    scaled = scaled_size(image.size, preprocessing)
    left, top = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    if resampling is Image.Resampling.NEAREST:
        return image.resize(scaled, resampling).crop((left, top, left + size[0], top + size[1]))
    # Only what is kept is computed, which is half of a photograph: within rounding the same pixels.
    by_x, by_y = image.width / scaled[0], image.height / scaled[1]
    box = (left * by_x, top * by_y, (left + size[0]) * by_x, (top + size[1]) * by_y)
    return image.resize(size, resampling, box=box)
