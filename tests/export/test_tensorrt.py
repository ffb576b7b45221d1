import pytest
import torch

from export import tensorrt
from export.candidates import refusals
from tests.export.conftest import options


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can build a plan")
def test_machine_without_a_gpu_refuses_in_one_line() -> None:
    reason = tensorrt.refusal()
    assert reason is not None and "no CUDA GPU" in reason and "\n" not in reason


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    assert tensorrt.refusal() == "torch-tensorrt is not installed; `make install-tensorrt` does it"


def test_nothing_is_refused_that_was_not_asked_for() -> None:
    assert refusals(options(publish="unused", formats="onnx,openvino")) == {}
