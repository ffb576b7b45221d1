from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from contract.card import Batching, Card, Preprocessing
from contract.manifest import Source
from export.errors import OptionsInvalid, VerificationFailed
from export.images import image_sets
from export.photographs import from_directory, sample_crops
from export.sources.source import SourceModel

CARD = Card(
    name="shades",
    labels=("dark", "light"),
    preprocessing=Preprocessing(height=6, width=8, shorter_side=8),
    batching=Batching(max_batch_size=4),
)


def photographs(directory: Path, folder: str, shades: range) -> None:
    (directory / folder).mkdir(parents=True)
    for shade in shades:
        Image.new("RGB", (20, 16), (shade, shade, shade)).save(directory / folder / f"{shade}.png")


def model(*, trained: bool) -> SourceModel:
    return SourceModel(nn.Identity(), CARD, Source(uri="mine", sha256="0" * 64), trained=trained)


def test_photographs_are_split_labelled_and_fitted(tmp_path: Path) -> None:
    photographs(tmp_path, "dark", range(15))
    photographs(tmp_path, "light", range(200, 215))
    calibration, held_out = from_directory(tmp_path, CARD)
    assert (calibration.shape, held_out.images.shape) == ((24, 6, 8, 3), (6, 6, 8, 3))
    assert held_out.labels is not None
    assert ((held_out.images[:, 0, 0, 0] >= 200) == held_out.labels).all()
    seen = {int(image[0, 0, 0]) for image in calibration} | {int(image[0, 0, 0]) for image in held_out.images}
    assert seen == {*range(15), *range(200, 215)}, "each photograph is in one of the two sets"


def test_photographs_outside_of_the_labels_folders_have_none(tmp_path: Path) -> None:
    photographs(tmp_path, "dark", range(15))
    photographs(tmp_path, "unsorted", range(200, 215))
    assert from_directory(tmp_path, CARD)[1].labels is None


def test_too_few_or_broken_photographs_are_refused(tmp_path: Path) -> None:
    photographs(tmp_path, "dark", range(4))
    with pytest.raises(VerificationFailed, match="4 photographs; give more than 4"):
        from_directory(tmp_path, CARD)
    (tmp_path / "broken.jpg").write_bytes(b"not a photograph")
    with pytest.raises(VerificationFailed, match=r"broken\.jpg: .*; remove it"):
        from_directory(tmp_path, CARD)


def test_sample_crops_repeat_and_differ_between_the_sets() -> None:
    crops = sample_crops(CARD.preprocessing, 10, calibrating=True)
    assert crops.shape == (10, 6, 8, 3) and crops.dtype == np.uint8
    assert (crops == sample_crops(CARD.preprocessing, 10, calibrating=True)).all()
    others = sample_crops(CARD.preprocessing, 10, calibrating=False)
    assert not any((crop == other).all() for crop, other in zip(crops, others, strict=True))
    assert crops.std() > 10, "they show something"


def test_trained_model_is_never_calibrated_on_the_samples() -> None:
    assert image_sets(model(trained=True), None, None).calibrated_on is None
    calibrated = image_sets(model(trained=False), None, None).calibrated_on
    assert calibrated is not None and "left halves" in calibrated.origin and calibrated.images == 300


def test_directory_goes_before_the_samples(tmp_path: Path) -> None:
    photographs(tmp_path / "mine", "dark", range(15))
    sets = image_sets(model(trained=True), tmp_path / "mine", None)
    assert (sets.verified_on, sets.origin) == ("a part of mine", "the rest of mine")
    with pytest.raises(OptionsInvalid, match="no such directory"):
        image_sets(model(trained=True), tmp_path / "absent", None)
