import pytest

from contract.manifest import Verification
from export.errors import FormatFailed
from export.gates import AccuracyLoss, Agreement, RelativeError, int8_gate


def figures(*, accuracy: float | None = None, agreement: float = 1.0, relative: float | None = 0.0) -> Verification:
    return Verification(
        batch_sizes=(1,),
        images=1_000,
        max_abs_error=1.0,
        mean_abs_error=1.0,
        relative_error=relative,
        top1_agreement=agreement,
        accuracy=accuracy,
    )


@pytest.mark.parametrize("accuracy", [0.99, 0.985, 1.0])
def test_int8_may_lose_half_a_point(accuracy: float) -> None:
    AccuracyLoss(eager=0.99).judge(figures(accuracy=accuracy))


def test_int8_may_not_lose_more() -> None:
    with pytest.raises(FormatFailed, match=r"loses 0\.60 points of accuracy, more than 0\.5"):
        AccuracyLoss(eager=0.99).judge(figures(accuracy=0.984))


def test_without_labels_the_best_label_must_agree() -> None:
    Agreement().judge(figures(agreement=0.995))
    with pytest.raises(FormatFailed, match=r"99\.40%"):
        Agreement().judge(figures(agreement=0.994))


def test_random_weights_are_judged_by_relative_error_and_not_by_near_ties() -> None:
    RelativeError().judge(figures(agreement=0.5, relative=0.1))
    with pytest.raises(FormatFailed, match="relative error of its scores is 0.11, more than 0.1"):
        RelativeError().judge(figures(relative=0.11))
    with pytest.raises(FormatFailed, match="all alike"):
        RelativeError().judge(figures(relative=None))


def test_gate_fits_what_is_known() -> None:
    assert int8_gate(0.9, trained=True) == AccuracyLoss(0.9)
    assert int8_gate(None, trained=True) == Agreement()
    assert int8_gate(None, trained=False) == RelativeError()
