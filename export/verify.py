"""Compares a candidate with the model it was exported from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from contract.manifest import Verification
from export.errors import FormatFailed
from export.exporters import Run
from export.held_out import HeldOutImages
from export.served import ServedModel


def eager_scores(served: ServedModel, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """The scores (N, K) of images (N, H, W, 3), `batch_size` at a time."""

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = served(torch.from_numpy(batch)).numpy()
        return scores

    with torch.inference_mode():
        return _run_in_batches(run, images, batch_size)


def verify(
    run: Run, held_out: HeldOutImages, expected: NDArray[np.float32], batch_sizes: Sequence[int]
) -> Verification:
    """Run a candidate on all the images, once for each batch size, and compare; a gate judges the figures.

    Args:
        expected: (N, K), the eager model's scores.

    Raises:
        FormatFailed: It does not run, returns another shape or a score that is not finite.
    """
    runs = [_scores(run, held_out.images, expected.shape, batch_size) for batch_size in batch_sizes]
    differences = np.stack(runs) - expected
    spread = _root_mean_square(expected - expected.mean(axis=1, keepdims=True))
    accuracies = [accuracy for scores in runs if (accuracy := held_out.accuracy(scores)) is not None]
    return Verification(
        batch_sizes=tuple(batch_sizes),
        images=len(held_out.images),
        max_abs_error=float(np.abs(differences).max()),
        mean_abs_error=float(np.abs(differences).mean()),
        relative_error=_root_mean_square(differences) / spread if spread else None,
        top1_agreement=float(np.mean([scores.argmax(axis=1) == expected.argmax(axis=1) for scores in runs])),
        accuracy=min(accuracies, default=None),
    )


def _scores(run: Run, images: NDArray[np.uint8], shape: tuple[int, ...], batch_size: int) -> NDArray[np.float32]:
    scores = _run_in_batches(run, images, batch_size)
    if scores.shape != shape or scores.dtype != np.float32:
        raise FormatFailed(f"scores are {scores.dtype} {scores.shape} at batch {batch_size}, not float32 {shape}")
    if not np.isfinite(scores).all():
        raise FormatFailed(f"scores are not finite at batch {batch_size}")
    return scores


def _root_mean_square(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _run_in_batches(run: Run, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    return np.concatenate([run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)])
