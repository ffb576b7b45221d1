from dataclasses import replace

import numpy as np
import pytest
import torch

from contract.card import Preprocessing
from contract.formats import Format
from contract.manifest import Manifest
from contract.model_config import gpu_model_config, model_config
from export.errors import LiveCheckFailed
from export.golden import GOLDEN, GoldenImages
from export.load import fit
from export.parity import Answer, Parity, tolerance
from export.served import ServedModel
from serving.images import prepare
from tests.publishable import Publishable


@pytest.fixture
def golden(digits: Publishable) -> GoldenImages:
    return GoldenImages.from_bytes((digits.files / GOLDEN).read_bytes())


def test_golden_images_are_kept_byte_for_byte(golden: GoldenImages, digits: Publishable) -> None:
    assert golden.to_bytes() == (digits.files / GOLDEN).read_bytes()
    assert golden.scores.shape == (len(golden.files), len(digits.draft.card.labels))


def test_some_golden_images_have_to_be_scaled(golden: GoldenImages) -> None:
    sizes = [golden.pixels(index).shape for index in range(len(golden.files))]
    assert sizes.count((32, 32, 3)) >= 4
    assert len([size for size in sizes if size[0] > 32 and size[1] > 32 and size[0] != size[1]]) >= 4


@pytest.mark.parametrize(
    "change",
    [{"interpolation": "nearest"}, {"interpolation": "bicubic"}, {"shorter_side": 32}, {"shorter_side": 36}],
)
def test_every_change_of_preprocessing_is_beyond_the_tolerance(
    golden: GoldenImages, digits: Publishable, served: ServedModel, change: dict[str, object]
) -> None:
    card = digits.draft.card

    def largest_difference(preprocessing: Preprocessing) -> float:
        images = np.stack([prepare(file, preprocessing, card.image_limits) for file in golden.files])
        with torch.inference_mode():
            return float(np.abs(served(torch.from_numpy(images)).numpy() - golden.scores).max())

    allowed = tolerance(digits.draft, model_config(card, Format.ONNX), golden)
    assert largest_difference(card.preprocessing) <= allowed
    assert largest_difference(card.preprocessing.model_copy(update=change)) > 100 * allowed


def test_golden_scores_follow_the_training_side(served: ServedModel, digits: Publishable) -> None:
    card = digits.draft.card
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    seen = []

    def score(
        batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        seen.append(batch)
        return np.zeros((len(batch), 10), np.float32)

    made = GoldenImages.of(card, images, fit, score)
    (batch,) = seen
    for index, image in enumerate(batch):
        np.testing.assert_array_equal(image, fit(made.pixels(index), card.preprocessing))


def test_tolerance_grows_with_the_measured_error_of_what_is_served(golden: GoldenImages, digits: Publishable) -> None:
    coarse = digits.draft.formats[Format.OPENVINO].model_copy(update={"max_abs_error": 0.5})
    draft: Manifest = digits.draft.model_copy(update={"formats": {**digits.draft.formats, Format.OPENVINO: coarse}})
    onnx, openvino = (
        tolerance(draft, model_config(draft.card, each), golden) for each in (Format.ONNX, Format.OPENVINO)
    )
    # FP32's rounding, and twice the error that the verification accepted.
    assert onnx < 0.0011
    assert openvino == pytest.approx(1.001)


def test_tolerance_of_fp16_is_a_share_of_the_largest_score(golden: GoldenImages, digits: Publishable) -> None:
    allowed = tolerance(digits.draft, gpu_model_config(digits.draft.card), golden)
    assert 0.01 * np.abs(golden.scores).max() < allowed < 0.02 * np.abs(golden.scores).max()


def test_server_that_runs_another_file_is_not_compared(golden: GoldenImages, digits: Publishable) -> None:
    config = model_config(digits.draft.card, Format.ONNX)
    config.default_model_filename = "other.onnx"
    with pytest.raises(LiveCheckFailed, match=r"other\.onnx"):
        tolerance(digits.draft, config, golden)


def test_answers_beyond_the_tolerance_and_refused_ones_are_failures() -> None:
    right = Answer("digits", 0, (32, 32), 0.5)
    wrong, refused = replace(right, image=1, difference=2.0), replace(right, image=2, difference=float("nan"))
    assert Parity([right, wrong, refused], tolerance=1.0).failures == (refused, wrong)
    assert Parity([right], tolerance=0.5).failures == ()
