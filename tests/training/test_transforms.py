import numpy as np
import pytest
import torch

from contract.card import Preprocessing
from training.digits import split_digits
from training.transforms import evaluation_transform, fit, training_transform

DIGITS = Preprocessing(height=32, width=32, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))


def test_evaluation_of_an_image_of_the_right_size_only_normalises() -> None:
    image = split_digits()[0].images[0]
    expected = (torch.from_numpy(image).permute(2, 0, 1) / 255 - 0.3) / 0.4
    # Albumentations folds the division by 255 into the mean and deviation; FP32 keeps seven digits.
    torch.testing.assert_close(evaluation_transform(DIGITS)(image=image)["image"], expected, rtol=0, atol=1e-6)


def test_augmentation_keeps_shape_and_type_and_changes_the_image() -> None:
    image = split_digits()[0].images[0]
    plain = evaluation_transform(DIGITS)(image=image)["image"]
    augmenting = training_transform(DIGITS, seed=0)
    augmented = [augmenting(image=image)["image"] for _ in range(20)]
    assert {(tuple(one.shape), one.dtype) for one in augmented} == {((3, 32, 32), torch.float32)}
    assert any(not torch.equal(one, plain) for one in augmented)


def test_equal_seeds_augment_alike() -> None:
    image = split_digits()[0].images[0]
    one, other = (training_transform(DIGITS, seed=7) for _ in range(2))
    for _ in range(5):
        assert torch.equal(one(image=image)["image"], other(image=image)["image"])


@pytest.mark.parametrize("size", [(32, 32), (100, 40), (31, 77)])
@pytest.mark.parametrize("shorter_side", [None, 32, 40])
def test_fitting_gives_the_size_of_the_input(size: tuple[int, int], shorter_side: int | None) -> None:
    preprocessing = Preprocessing(height=24, width=32, shorter_side=shorter_side)
    assert fit(np.zeros((*size, 3), dtype=np.uint8), preprocessing).shape == (24, 32, 3)


def test_cut_is_around_the_centre() -> None:
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    image[:, 16:48] = 255
    assert (fit(image, Preprocessing(height=32, width=32, shorter_side=32)) == 255).all()
