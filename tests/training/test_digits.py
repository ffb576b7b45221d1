import numpy as np
from sklearn.datasets import load_digits

from training.digits import DigitsDataModule, digits, digits_card, split_digits


def test_digits_are_rgb_photographs_of_the_whole_range() -> None:
    data = digits()
    assert data.images.shape == (1797, 32, 32, 3)
    assert data.images.dtype == np.uint8
    assert (data.images.min(), data.images.max()) == (0, 255)
    assert data.labels.shape == (1797,)
    assert set(data.labels.tolist()) == set(range(10))


def test_every_original_pixel_becomes_a_grey_block() -> None:
    original = load_digits().images[0]
    enlarged = digits().images[0]
    for row, column in np.ndindex(8, 8):
        block = enlarged[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert (block == round(original[row, column] * 255 / 16)).all()


def test_test_split_is_a_stratified_fifth_and_always_the_same() -> None:
    train, test = split_digits()
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    again, _ = split_digits()
    assert np.array_equal(train.images, again.images)
    everywhere = np.bincount(digits().labels) / 1797
    # A stratified split rounds each class to whole images: at most one image from its share.
    assert np.abs(np.bincount(test.labels) - everywhere * 360).max() <= 1


def test_validation_is_cut_from_the_training_images() -> None:
    data = DigitsDataModule(batch_size=64, validation_share=0.1, seed=0)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (1293, 144, 360)
    _, test = split_digits()
    assert np.array_equal(data.test.images, test.images)


def test_batches_are_normalised_by_the_training_images() -> None:
    data = DigitsDataModule(batch_size=2000, validation_share=0.1, seed=0)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (360, 3, 32, 32)
    assert labels.shape == (360,)
    # Other images of the same kind: -0.0008 and 0.9998 are measured, ten times as far is allowed.
    assert abs(float(images.mean())) < 0.008
    assert abs(float(images.std()) - 1) < 0.002


def test_card_names_the_digits_and_may_be_cached() -> None:
    train, _ = split_digits()
    card = digits_card(train)
    assert card.labels == tuple("0123456789")
    assert card.images.dims == (32, 32, 3)
    assert card.batching.max_batch_size == 32
    assert card.cache_responses
