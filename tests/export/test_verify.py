import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import FormatFailed, VerificationFailed
from export.gates import FP32
from export.held_out import HeldOutImages
from export.load import Checkpoint
from export.verify import verify

IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(3, axis=-1)
HELD_OUT = HeldOutImages(IMAGES)
EXPECTED = np.stack([np.arange(40), np.full(40, 19.5)], axis=1).astype(np.float32)


def exact(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = EXPECTED[images[:, 0, 0, 0]]
    return scores


def test_exact_format_passes_at_every_batch_size() -> None:
    seen: list[int] = []

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(images))
        return exact(images)

    result = verify(run, HELD_OUT, EXPECTED, [1, 2, 32])
    assert seen == [1] * 40 + [2] * 20 + [32, 8]
    assert (result.batch_sizes, result.images) == ((1, 2, 32), 40)
    assert (result.max_abs_error, result.mean_abs_error, result.top1_agreement) == (0, 0, 1)


def test_figures_are_those_of_the_worst_image_and_of_all() -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = exact(images)
        scores[images[:, 0, 0, 0] == 0, 0] += np.float32(5e-4)
        return scores

    result = verify(run, HELD_OUT, EXPECTED, [8])
    # 5e-4 next to 0 keeps FP32's seven digits.
    assert result.max_abs_error == pytest.approx(5e-4, rel=1e-6)
    assert result.mean_abs_error == pytest.approx(5e-4 / 80, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite_fails(value: float) -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = exact(images)
        scores[images[:, 0, 0, 0] == 33, 1] = value
        return scores

    with pytest.raises(FormatFailed, match="not finite at batch 2"):
        verify(run, HELD_OUT, EXPECTED, [2])


def test_error_at_one_batch_size_alone_fails() -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return exact(images) + np.float32(0.1 if len(images) == 32 else 0)

    with pytest.raises(FormatFailed, match="off by 0.1"):
        FP32.judge(verify(run, HELD_OUT, EXPECTED, [1, 2, 32]))


def test_shift_of_all_scores_below_the_largest_error_fails() -> None:
    shift = np.float32(FP32.max_abs_error / 2)
    with pytest.raises(FormatFailed, match="on average"):
        FP32.judge(verify(lambda images: exact(images) + shift, HELD_OUT, EXPECTED, [1]))


def test_small_error_of_smaller_scores_fails() -> None:
    small = EXPECTED * np.float32(1e-6)
    with pytest.raises(FormatFailed, match="relative error"):
        FP32.judge(verify(lambda images: exact(images) * np.float32(1.1e-6), HELD_OUT, small, [1]))


def test_other_best_labels_fail() -> None:
    near = np.full((40, 3), 1, dtype=np.float32)
    near[:, 0] += np.float32(1e-6)
    near[:, 2] = -5

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return near[: len(images), [1, 0, 2]]

    with pytest.raises(FormatFailed, match="best label agrees on 0.00%"):
        FP32.judge(verify(run, HELD_OUT, near, [1]))


def test_accuracy_is_that_of_the_worst_batch_size() -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return exact(images)[:, ::-1] if len(images) == 8 else exact(images)

    labelled = HeldOutImages(IMAGES, EXPECTED.argmax(axis=1).astype(np.int64))
    assert verify(run, labelled, EXPECTED, [1]).accuracy == 1
    assert verify(run, labelled, EXPECTED, [1, 8]).accuracy == 0


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3), dtype=np.float32), np.zeros((2, 2), dtype=np.float32), np.zeros((1, 2))]
)
def test_scores_of_another_shape_or_type_fail(wrong: NDArray[np.float32]) -> None:
    with pytest.raises(FormatFailed, match="not float32"):
        verify(lambda images: wrong, HELD_OUT, EXPECTED, [1])


def test_images_must_be_those_the_card_asks_for(loaded: Checkpoint, held_out: HeldOutImages) -> None:
    held_out.check(loaded.card)
    with pytest.raises(VerificationFailed, match="takes uint8"):
        HeldOutImages(held_out.images[:, :16]).check(loaded.card)
    with pytest.raises(VerificationFailed, match="at least 32"):
        HeldOutImages(held_out.images[:31]).check(loaded.card)
