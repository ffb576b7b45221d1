from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.digits import digits
from training.errors import DataInvalid
from training.images import LabelledImages


def test_saved_images_are_loaded_and_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        digits().save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = LabelledImages.load(tmp_path / "one.npz")
    assert np.array_equal(loaded.images, digits().images)
    assert np.array_equal(loaded.labels, digits().labels)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "labels"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, np.int64)}, r"\(2, 8, 8, 3\)"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32), "labels": np.zeros(2, np.int64)}, "float32"),
        ({"images": np.zeros((2, 64), np.uint8), "labels": np.zeros(2, np.int64)}, r"\(2, 64\)"),
        ({"images": np.array([{}], dtype=object), "labels": np.zeros(1, np.int64)}, "allow_pickle=False"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, NDArray[Any]], words: str) -> None:
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataInvalid, match=words):
        LabelledImages.load(tmp_path / "other.npz")


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"PK\x03\x04"])
def test_other_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "other.npz").write_bytes(data)
    with pytest.raises(DataInvalid, match="not an .npz file"):
        LabelledImages.load(tmp_path / "other.npz")


def test_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DataInvalid, match="not an .npz file"):
        LabelledImages.load(tmp_path / "other.npy")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="No such file"):
        LabelledImages.load(tmp_path / "none.npz")
