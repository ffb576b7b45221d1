"""Photographs decoded where the model runs, against Pillow's: by torch's CPU here, and by nvJPEG where there is a GPU."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from contract.card import ImageLimits, Preprocessing
from serving.backends.pytorch import photographs
from serving.backends.pytorch.photographs import DeviceDecoder
from serving.images import prepare
from tests.serving.photographs import encode

pytestmark = pytest.mark.filterwarnings("ignore:.*image decoding and encoding.*:DeprecationWarning")

LIMITS = ImageLimits()
# 640 × 427, as cameras write them.
CHINA, FLOWER = (
    (Path(sklearn.datasets.__file__).parent / "images" / f"{name}.jpg").read_bytes() for name in ("china", "flower")
)
SCALINGS = {
    "cut": {"height": 224, "width": 224, "shorter_side": 256},
    "stretched": {"height": 300, "width": 240},
    "enlarged": {"height": 480, "width": 500, "shorter_side": 512},
    "as it is": {"height": 427, "width": 427, "shorter_side": 427},
}


DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]
# The greatest and the mean difference. Both decode by libjpeg and round after each axis, of which Pillow may take the other
# first; nvJPEG's transform and chroma are its own.
MOST = {"cpu": (1, 0.2), "cuda:0": (64, 2.0)}
CUT = Preprocessing(height=224, width=224, shorter_side=256)


def assert_pillows(files: list[bytes], preprocessing: Preprocessing, device: str = "cpu") -> None:
    decoder = DeviceDecoder(device, preprocessing, LIMITS)
    decoded = decoder.decode(files)
    assert all(image is not None for image in decoded)
    batch = decoder.stack(decoded)
    assert (batch.dtype, batch.device, batch.is_contiguous()) == (torch.uint8, torch.device(device), True)
    assert batch.shape == (len(files), preprocessing.height, preprocessing.width, 3)
    for image, file in zip(batch.cpu().numpy(), files, strict=True):
        difference = np.abs(image.astype(np.int16) - prepare(file, preprocessing, LIMITS))
        assert difference.max() <= MOST[device][0] and difference.mean() <= MOST[device][1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_pixels_are_pillows(scaling: str, interpolation: Any, device: str) -> None:
    preprocessing = Preprocessing(**SCALINGS[scaling], interpolation=interpolation)
    assert_pillows([CHINA, FLOWER], preprocessing, device)


@pytest.mark.parametrize("shorter_side", [256, None])
def test_photographs_are_turned_as_exif_says(shorter_side: int | None) -> None:
    files = []
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(encode(Image.open(io.BytesIO(CHINA)), "JPEG", exif=exif, quality=95))
    assert_pillows(files, Preprocessing(height=200, width=256, shorter_side=shorter_side))


def test_a_progressive_jpeg_and_one_of_full_colour_are_decoded() -> None:
    image = Image.open(io.BytesIO(FLOWER))
    files = [encode(image, "JPEG", progressive=True), encode(image, "JPEG", subsampling="4:4:4")]
    assert_pillows(files, CUT)


def test_much_larger_photographs_differ_by_what_pillow_saves() -> None:
    # It has libjpeg halve them twice, as averages that are not quite the filter's.
    preprocessing = Preprocessing(height=48, width=48, shorter_side=50)
    decoder = DeviceDecoder("cpu", preprocessing, LIMITS)
    for image, file in zip(decoder.stack(decoder.decode([CHINA, FLOWER])).numpy(), [CHINA, FLOWER], strict=True):
        assert np.abs(image.astype(np.int16) - prepare(file, preprocessing, LIMITS)).mean() < 2


def damaged() -> bytes:
    """A photograph whose first Huffman table has more codes than there are."""
    counts = CHINA.index(b"\xff\xc4") + 5
    return CHINA[:counts] + b"\xff" * 16 + CHINA[counts + 16 :]


def left_to_pillow() -> dict[str, bytes]:
    photograph = Image.open(io.BytesIO(CHINA)).resize((64, 48))
    return {
        "PNG": encode(photograph, "PNG"),
        "WebP": encode(photograph, "WEBP"),
        "grey": encode(photograph.convert("L"), "JPEG"),
        "CMYK": encode(photograph.convert("CMYK"), "JPEG"),
        "RGB": encode(photograph, "JPEG", keep_rgb=True),
        "truncated": CHINA[: len(CHINA) // 2],
        "damaged": damaged(),
        "no image": b"no image",
        "empty": b"",
        "many pixels": encode(Image.new("RGB", (9_000, 8)), "JPEG"),
        "too long": encode(Image.new("RGB", (408, 8)), "JPEG"),
    }


@pytest.fixture
def decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each call of torchvision gets."""
    sizes: list[int] = []

    def counting(files: list[torch.Tensor], **options: Any) -> Any:
        sizes.append(len(files))
        return decode_jpeg(files, **options)

    monkeypatch.setattr(photographs, "decode_jpeg", counting)
    return sizes


@pytest.mark.parametrize("device", DEVICES)
def test_what_it_does_not_take_is_left_to_pillow_and_the_rest_is_decoded(
    device: str, decoded_at_once: list[int]
) -> None:
    left = left_to_pillow()
    decoder = DeviceDecoder(device, CUT, ImageLimits(max_pixels=300_000))
    first, *others, last = decoder.decode([CHINA, *left.values(), FLOWER])
    assert first is not None and last is not None
    assert [name for name, image in zip(left, others, strict=True) if image is not None] == []
    # The one that is damaged looks good before, and then spoils the batch.
    assert decoded_at_once == [3, 1, 1, 1]
    # One batch of both kinds.
    by_pillow = prepare(left["PNG"], CUT, LIMITS)
    batch = decoder.stack([first, by_pillow, last])
    np.testing.assert_array_equal(batch.cpu().numpy()[1], by_pillow)


def test_no_more_pixels_than_fit_are_decoded_at_once(
    monkeypatch: pytest.MonkeyPatch, decoded_at_once: list[int]
) -> None:
    monkeypatch.setattr(photographs, "_MAX_PIXELS_AT_ONCE", 2 * 640 * 427)
    assert_pillows([CHINA, FLOWER, FLOWER, CHINA, CHINA], CUT)
    assert decoded_at_once == [2, 2, 1]
    monkeypatch.setattr(photographs, "_MAX_PIXELS_AT_ONCE", 640 * 427 - 1)
    assert DeviceDecoder("cpu", CUT, LIMITS).decode([CHINA]) == [None]
