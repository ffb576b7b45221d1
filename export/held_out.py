"""Images the model was not trained on: what every format is verified with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.card import Card
from export.errors import VerificationFailed


@dataclass(frozen=True, slots=True)
class HeldOutImages:
    """Images, and their classes where these are known.

    Attributes:
        images: (N, H, W, 3), RGB, 0..255, of the size the card asks for.
        labels: (N,), the index of the class; None: accuracy is not measured.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None

    def check(self, card: Card) -> None:
        """Compare with what the card asks for.

        Raises:
            VerificationFailed: The images are of another shape or type, or too few to fill a batch.
        """
        expected = card.images.dims
        if self.images.dtype != np.uint8 or self.images.shape[1:] != expected:
            found = f"{self.images.dtype} {self.images.shape[1:]}"
            raise VerificationFailed(f"the images to verify on are {found}; {card.name} takes uint8 {expected}")
        # An exporter that watches a batch of one takes the one for a constant.
        needed = max(2, card.batching.max_batch_size)
        if len(self.images) < needed:
            raise VerificationFailed(f"{len(self.images)} images do not fill a batch; give at least {needed}")

    def accuracy(self, scores: NDArray[np.float32]) -> float | None:
        """Share of the images whose best score is their label's, 0..1; None without labels."""
        return None if self.labels is None else float((scores.argmax(axis=1) == self.labels).mean())
