import pytest

from contract.formats import Candidate, Format, Target
from contract.manifest import SpeedPoint, Trial
from export.choose import choose
from export.errors import VerificationFailed


def at(*speeds: float) -> Trial:
    """Measured at batches 1, 2 and so on."""
    points = (
        SpeedPoint(batch_size=size, images_per_s=speed, p50_ms=1, p99_ms=1, runs=1)
        for size, speed in enumerate(speeds, 1)
    )
    return Trial(speed=tuple(points))


def test_fastest_at_its_best_batch_is_served() -> None:
    choice = choose({Candidate.ONNX: at(50, 60), Candidate.OPENVINO: at(10, 70)}, Target.CPU, None)
    assert choice.served is Candidate.OPENVINO
    assert choice.reason == "the fastest that holds its gate: 70 images/s at batch 2"


def test_torchscript_is_served_where_asked_for_alone() -> None:
    trials = {Candidate.TORCHSCRIPT: at(100), Candidate.ONNX: at(50)}
    assert choose(trials, Target.CPU, None).served is Candidate.ONNX
    assert choose(trials, Target.CPU, Format.TORCHSCRIPT).served is Candidate.TORCHSCRIPT


@pytest.mark.parametrize(("fp32", "int8", "kept"), [(10, 20, "openvino-int8"), (20, 10, "openvino")])
def test_version_holds_the_faster_openvino_model(fp32: float, int8: float, kept: str) -> None:
    trials = {Candidate.OPENVINO: at(fp32), Candidate.OPENVINO_INT8: at(int8)}
    choice = choose(trials, Target.CPU, Format.OPENVINO)
    assert choice.served == kept
    (loser,) = [trial for trial in choice.trials.values() if trial.dropped]
    assert loser.speed and loser.dropped == f"a version holds one OpenVINO model, and {kept} won"


def test_unmeasured_int8_goes_before_fp32() -> None:
    choice = choose({Candidate.OPENVINO: Trial(), Candidate.OPENVINO_INT8: Trial()}, Target.CPU, None)
    assert choice.served is Candidate.OPENVINO_INT8


def test_dropped_int8_leaves_fp32() -> None:
    trials = {Candidate.OPENVINO: at(10), Candidate.OPENVINO_INT8: Trial(dropped="it loses 3 points")}
    choice = choose(trials, Target.CPU, None)
    assert choice.served is Candidate.OPENVINO
    assert choice.trials == trials


def test_gpu_target_serves_onnx_however_fast_the_others_are() -> None:
    choice = choose({Candidate.ONNX: at(1), Candidate.OPENVINO: at(9)}, Target.GPU, None)
    assert choice.served is Candidate.ONNX


@pytest.mark.parametrize(
    ("trials", "serve", "words"),
    [
        ({Candidate.ONNX: Trial(dropped="broken")}, Format.ONNX, "onnx, which .* failed: broken"),
        ({Candidate.ONNX: Trial()}, Format.TENSORRT, "tensorrt, which .* not among the formats"),
        (
            {Candidate.TORCHSCRIPT: Trial(), Candidate.ONNX: Trial(dropped="broken")},
            None,
            "no format is left .* broken",
        ),
    ],
)
def test_nothing_to_serve_is_an_error(trials: dict[Candidate, Trial], serve: Format | None, words: str) -> None:
    with pytest.raises(VerificationFailed, match=words):
        choose(trials, Target.CPU, serve)
