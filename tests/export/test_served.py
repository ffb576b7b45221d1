import numpy as np
import torch

from export.gates import FP32
from export.held_out import HeldOutImages
from export.load import Checkpoint
from export.served import ServedModel
from training.transforms import evaluation_transform


def test_folded_normalisation_equals_that_of_training(
    loaded: Checkpoint, served: ServedModel, held_out: HeldOutImages
) -> None:
    transform = evaluation_transform(loaded.card.preprocessing)
    normalised = torch.stack([transform(image=image)["image"] for image in held_out.images[:64]])
    with torch.inference_mode():
        expected = loaded.network(normalised).numpy()
        scores = served(torch.from_numpy(held_out.images[:64])).numpy()
    # The same FP32 products in another order, as between two formats.
    assert np.abs(scores - expected).max() < FP32.max_abs_error


def test_scores_are_fp32_logits(served: ServedModel, held_out: HeldOutImages) -> None:
    with torch.inference_mode():
        scores = served(torch.from_numpy(held_out.images[:3]))
    assert scores.shape == (3, 10)
    assert scores.dtype == torch.float32
