"""Scikit-learn's handwritten digits as photographs a vision model takes, and the card of the model trained on them."""

import numpy as np
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

from contract.card import Batching, Card, Channels, Preprocessing
from training.images import LabelledImages, TransformedImages
from training.transforms import evaluation_transform, training_transform

NAME = "digits"
TEST_SHARE = 0.2
_ENLARGEMENT = 4


def digits() -> LabelledImages:
    """All 1797 digits, 32×32, each pixel of the original 8×8 repeated 4×4 times, grey in all three channels."""
    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    enlarged = grey.repeat(_ENLARGEMENT, axis=1).repeat(_ENLARGEMENT, axis=2)
    return LabelledImages(np.repeat(enlarged[..., None], 3, axis=-1), bunch.target.astype(np.int64))


def split_digits() -> tuple[LabelledImages, LabelledImages]:
    """The digits to train on, and the held-out fifth that accuracy is measured on; the same in every run."""
    return _hold_out(digits())


def _hold_out(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    return images.split(TEST_SHARE, seed=0)


def digits_card(train: LabelledImages) -> Card:
    """The card of a classifier normalised by the mean and deviation of `train`."""
    scaled = train.images / 255
    mean, std = scaled.mean(axis=(0, 1, 2)), scaled.std(axis=(0, 1, 2))
    return Card(
        name=NAME,
        description="Handwritten digits: scikit-learn's load_digits, enlarged to 32×32.",
        labels=tuple(str(digit) for digit in range(10)),
        preprocessing=Preprocessing(height=32, width=32, mean=_channels(mean.tolist()), std=_channels(std.tolist())),
        batching=Batching(max_batch_size=32),
        cache_responses=True,
    )


def _channels(values: list[float]) -> Channels:
    red, green, blue = (round(value, 6) for value in values)
    return red, green, blue


class DigitsDataModule(LightningDataModule):
    """Digits in three parts: training (augmented), validation and test.

    Args:
        images: All of them, the held-out fifth too; None: scikit-learn's.

    Attributes:
        card: Of the model to train; its preprocessing is measured on the training part alone.
    """

    def __init__(
        self, batch_size: int, validation_share: float, seed: int, images: LabelledImages | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["images"])
        self._batch_size = batch_size
        rest, self.test = _hold_out(digits() if images is None else images)
        self.train, self.validation = rest.split(validation_share, seed)
        self.card = digits_card(self.train)
        self._augmenting = training_transform(self.card.preprocessing, seed)
        self._plain = evaluation_transform(self.card.preprocessing)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        data = TransformedImages(self.train, self._augmenting)
        return DataLoader(data, batch_size=self._batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(TransformedImages(self.validation, self._plain), batch_size=self._batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(TransformedImages(self.test, self._plain), batch_size=self._batch_size)
