"""What a model is verified on, and what its INT8 form is calibrated on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.manifest import Calibration
from export.errors import OptionsInvalid
from export.held_out import HeldOutImages
from export.load import held_out_images, training_images
from export.photographs import CALIBRATION_IMAGES, from_directory, sample_crops
from export.sources.source import SourceModel

_SAMPLE_CROPS = 64
_SAMPLES = "scikit-learn's two sample photographs"


@dataclass(frozen=True, slots=True)
class ImageSets:
    """Images of which none is in both sets.

    Attributes:
        verified_on: Where those held out are from, for the manifest.
        calibration: (N, H, W, 3); None: there are none fit for it.
        origin: Where those to calibrate on are from.
    """

    held_out: HeldOutImages
    verified_on: str
    calibration: NDArray[np.uint8] | None = None
    origin: str = ""

    @property
    def calibrated_on(self) -> Calibration | None:
        """For the manifest."""
        return None if self.calibration is None else Calibration(images=len(self.calibration), origin=self.origin)


def image_sets(model: SourceModel, directory: Path | None, given: HeldOutImages | None) -> ImageSets:
    """Find images: those given, else a data set of ours that the model was trained on, else the samples.

    Args:
        directory: Photographs to calibrate and verify on, in place of all others.
        given: To verify on, in place of all others.

    Raises:
        OptionsInvalid: The directory is none.
        VerificationFailed: The images are too few, unreadable, or not of the card's size.
    """
    sets = _found(model, directory)
    if given is not None:
        sets = ImageSets(given, "images given", sets.calibration, sets.origin)
    sets.held_out.check(model.card)
    return sets


def _found(model: SourceModel, directory: Path | None) -> ImageSets:
    card = model.card
    if directory is not None:
        if not directory.is_dir():
            raise OptionsInvalid(f"calibration: {directory}: no such directory")
        kept, held_out = from_directory(directory, card)
        return ImageSets(held_out, f"a part of {directory.name}", kept, f"the rest of {directory.name}")
    if (held_out_ours := held_out_images(model.data_set)) is not None:
        training = training_images(model.data_set, CALIBRATION_IMAGES)
        origin = f"training images of {model.data_set}"
        return ImageSets(held_out_ours, f"the test images of {model.data_set}", training, origin)
    crops = sample_crops(card.preprocessing, max(_SAMPLE_CROPS, card.batching.max_batch_size), calibrating=False)
    verified_on = f"crops of the right halves of {_SAMPLES}"
    if model.trained:
        # Two photographs tell nothing of the ranges that a trained model's activations take.
        return ImageSets(HeldOutImages(crops), verified_on)
    calibration = sample_crops(card.preprocessing, CALIBRATION_IMAGES, calibrating=True)
    return ImageSets(HeldOutImages(crops), verified_on, calibration, f"crops of the left halves of {_SAMPLES}")
