"""The scans of a JPEG are counted as the decoder would find them, and a bomb of them is refused unopened."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from contract.card import ImageLimits, Preprocessing
from serving.images import ImageRefused, prepare
from serving.jpeg_scans import count_scans
from tests.serving.photographs import scan_bomb

_SAME_SIZE = Preprocessing(height=64, width=64)


def _jpeg(**options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_a_baseline_jpeg_has_one_scan_and_a_progressive_one_has_ten() -> None:
    assert count_scans(_jpeg(), 1_000) == 1
    assert count_scans(_jpeg(progressive=True), 1_000) == 10
    assert count_scans(_jpeg(restart_marker_blocks=1), 1_000) == 1


def test_a_thumbnail_within_the_file_is_not_counted() -> None:
    exif = b"Exif\0\0" + _jpeg(progressive=True)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    good = _jpeg()
    assert count_scans(good[:2] + segment + good[2:], 1_000) == 1
    # Nor is a second picture behind the first.
    assert count_scans(good + good, 1_000) == 1


def test_a_bomb_of_scans_is_refused_and_counted_no_further_than_needed() -> None:
    bomb = scan_bomb(50_000)
    assert count_scans(bomb, 100) == 101
    with pytest.raises(ImageRefused, match="^more than 100 scans$"):
        prepare(bomb, _SAME_SIZE, ImageLimits())
    prepare(scan_bomb(0), _SAME_SIZE, ImageLimits())


@pytest.mark.parametrize(
    "between",
    [
        b"\0",
        b"\xff\x01\0",  # A marker without a length, and what follows it.
        b"\xff\xd7\xff\xff\xff",
        b"\xff\xfe\x00\x02\0",  # An empty comment.
        b"\xff\x05\xff\xff",
    ],
)
def test_scans_are_found_behind_what_a_decoder_passes_over(between: bytes) -> None:
    assert count_scans(scan_bomb(20, between), 1_000) == 30


def test_a_file_of_endless_segments_has_too_many_scans() -> None:
    assert count_scans(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 200_000, 100) == 101


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_damaged_file_is_counted_as_far_as_it_goes(cut: int) -> None:
    good = _jpeg(progressive=True)
    assert count_scans(good[:cut], 1_000) <= 10
    assert count_scans(good[:cut] + b"\xff" * 50 + good[cut:], 1_000) <= 10


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_a_file_of_too_many_frames_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), (50 * shade, 0, 0)) for shade in range(5)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    prepare(file.getvalue(), _SAME_SIZE, ImageLimits(max_frames=5))
    with pytest.raises(ImageRefused, match="^5 frames, limit 4$"):
        prepare(file.getvalue(), _SAME_SIZE, ImageLimits(max_frames=4))
