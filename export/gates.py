"""What a candidate must hold to be published: every threshold, and its reason."""

from dataclasses import dataclass
from typing import Protocol

from contract.manifest import Verification
from export.errors import FormatFailed


class Gate(Protocol):
    """Decides on the figures of a comparison with the eager model."""

    def judge(self, result: Verification) -> None:
        """Let a candidate pass.

        Raises:
            FormatFailed: It does not; the message has the figure and the threshold.
        """


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an FP32 format may be from the eager model: room for rounding, and for nothing else.

    The runtimes add the same FP32 products in different orders. Nothing a caller can see depends on it: scores that are
    each off by d change no softmax probability by more than d / 2.

    Attributes:
        max_abs_error: Of any logit. At 1e-3 no probability moves by more than 0.05 percentage points.
        mean_abs_error: Of all logits. Rounding has no direction, so its mean stays far below its maximum; a wrong
            constant, such as a mean or a deviation, shifts every score alike.
        relative_error: Of the scores around their mean. A model of small scores would pass the limits above with any.
        top1_agreement: Share of the images with the same best label; two scores may tie within the error.
    """

    max_abs_error: float = 1e-3
    mean_abs_error: float = 1e-4
    relative_error: float = 1e-3
    top1_agreement: float = 0.999

    def judge(self, result: Verification) -> None:
        if result.max_abs_error > self.max_abs_error:
            raise FormatFailed(f"a score is off by {result.max_abs_error:.2g}, more than {self.max_abs_error:g}")
        if result.mean_abs_error > self.mean_abs_error:
            raise FormatFailed(
                f"scores are off by {result.mean_abs_error:.2g} on average, more than {self.mean_abs_error:g}"
            )
        _judge_relative_error(result, self.relative_error)
        _judge_agreement(result, self.top1_agreement)


@dataclass(frozen=True, slots=True)
class AccuracyLoss:
    """For INT8, where the true labels are known: what it costs in the figure that matters.

    Attributes:
        eager: The eager model's accuracy on the same images, 0..1.
        max_points: Percentage points that may be lost.
    """

    eager: float
    max_points: float = 0.5

    def judge(self, result: Verification) -> None:
        if result.accuracy is None:
            raise FormatFailed("its accuracy could not be measured without labels")
        lost = (self.eager - result.accuracy) * 100
        # One image of a set whose size makes it exactly the limit must not fail by a rounding of the shares.
        if lost > self.max_points + 1e-9:
            raise FormatFailed(f"it loses {lost:.2f} points of accuracy, more than {self.max_points:g}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """For INT8 of trained weights, where the true labels are not known.

    An image can only be lost where its best label changes, so that the share of changed labels is the most that accuracy
    can fall: the limit of `AccuracyLoss`, seen from the other side, and stricter, as most changes cost nothing.

    Attributes:
        top1_agreement: Share of the images with the same best label.
    """

    top1_agreement: float = 0.995

    def judge(self, result: Verification) -> None:
        _judge_agreement(result, self.top1_agreement)


@dataclass(frozen=True, slots=True)
class RelativeError:
    """For INT8 of random weights, which have no accuracy to lose.

    Their best labels are near-ties that say nothing, so that agreement is recorded and not judged. What can be asked is
    that the quantised graph still computes the same function: at 0.1 the noise has a hundredth of the power of the
    scores, 20 dB below them. It says that the figures of speed are of a working model, and nothing about a trained one.
    """

    limit: float = 0.1

    def judge(self, result: Verification) -> None:
        if result.relative_error is None:
            raise FormatFailed("the model's scores are all alike, so that their relative error is undefined")
        _judge_relative_error(result, self.limit)


FP32 = Tolerance()


def int8_gate(eager_accuracy: float | None, *, trained: bool) -> Gate:
    """The gate of an INT8 model.

    Args:
        eager_accuracy: On the images it is judged on, 0..1; None where they have no labels.
        trained: False: the weights are random.
    """
    if not trained:
        return RelativeError()
    return Agreement() if eager_accuracy is None else AccuracyLoss(eager_accuracy)


def _judge_relative_error(result: Verification, limit: float) -> None:
    if result.relative_error is not None and result.relative_error > limit:
        raise FormatFailed(f"the relative error of its scores is {result.relative_error:.2g}, more than {limit:g}")


def _judge_agreement(result: Verification, least: float) -> None:
    if result.top1_agreement < least:
        raise FormatFailed(f"the best label agrees on {result.top1_agreement:.2%} of images, less than {least:.2%}")
