from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
import torchvision
from torch import Tensor, nn

from contract.card import Preprocessing
from contract.formats import Candidate
from export.errors import FormatFailed
from export.exporters import EXPORTERS, Exporter
from export.gates import FP32
from export.held_out import HeldOutImages
from export.pipeline import ExportResult
from export.served import ServedModel
from export.verify import eager_scores, verify

Exported = tuple[Path, ExportResult]


class DependsOnData(nn.Module):
    """Takes a turn that no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) if float(images.sum()) > 0 else images.sum(dim=(2, 3))


class PoolsPositions(nn.Module):
    """Uses an operator of torchvision that ONNX has not."""

    def forward(self, images: Tensor) -> Tensor:
        whole = images.new_tensor([[0, 0, 0, 8, 8]])
        pooled: Tensor = torchvision.ops.ps_roi_pool(images, whole, 1)
        return pooled.flatten(1).expand(images.shape[0], 3)


@pytest.mark.parametrize("candidate", EXPORTERS)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_format_agrees_with_the_eager_model(
    exported: Exported, served: ServedModel, held_out: HeldOutImages, candidate: Candidate, batch_size: int
) -> None:
    run = EXPORTERS[candidate].load(exported[0] / "digits" / "1")
    images = held_out.images[:70]
    FP32.judge(verify(run, HeldOutImages(images), eager_scores(served, images, 32), [batch_size]))


@pytest.mark.parametrize("candidate", EXPORTERS)
def test_format_writes_the_files_the_contract_names(exported: Exported, candidate: Candidate) -> None:
    for filename in candidate.file_format.filenames:
        assert (exported[0] / "digits" / "1" / filename).stat().st_size > 0


@pytest.mark.parametrize("candidate", EXPORTERS)
def test_runtime_that_refuses_its_file_fails_the_format(tmp_path: Path, candidate: Candidate) -> None:
    for filename in candidate.file_format.filenames:
        (tmp_path / filename).write_bytes(b"not a model")
    with pytest.raises(FormatFailed):
        EXPORTERS[candidate].load(tmp_path)


@pytest.mark.parametrize("candidate", EXPORTERS)
def test_runtime_that_refuses_an_image_fails_the_format(exported: Exported, candidate: Candidate) -> None:
    run = EXPORTERS[candidate].load(exported[0] / "digits" / "1")
    with pytest.raises(FormatFailed):
        run(np.zeros((1, 32, 32, 5), dtype=np.uint8))


@pytest.mark.parametrize("exporter", [EXPORTERS[Candidate.ONNX], EXPORTERS[Candidate.OPENVINO]])
def test_model_that_no_graph_can_hold_fails_the_format(
    held_out: HeldOutImages, tmp_path: Path, exporter: Exporter
) -> None:
    model = ServedModel(DependsOnData(), preprocessing=Preprocessing(height=32, width=32))
    with pytest.raises(FormatFailed):
        exporter.export(model, held_out.images[:2], tmp_path)


def test_operator_that_the_format_lacks_is_named(held_out: HeldOutImages, tmp_path: Path) -> None:
    model = ServedModel(PoolsPositions(), preprocessing=Preprocessing(height=32, width=32))
    with pytest.raises(FormatFailed, match=r"^the format has no operator for torchvision\.ps_roi_pool$"):
        EXPORTERS[Candidate.ONNX].export(model, held_out.images[:2], tmp_path)


def test_onnx_is_one_file_with_named_tensors_and_a_free_batch(exported: Exported) -> None:
    model = onnx.load(exported[0] / "digits" / "1" / "model.onnx", load_external_data=False)
    (image,), (score,) = model.graph.input, model.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert (score.name, score.type.tensor_type.elem_type) == ("scores", onnx.TensorProto.FLOAT)
    dims = image.type.tensor_type.shape.dim
    assert dims[0].dim_param and [dim.dim_value for dim in dims[1:]] == [32, 32, 3]
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer)


def test_openvino_keeps_fp32_weights_and_the_names(exported: Exported) -> None:
    model = openvino.Core().read_model(exported[0] / "digits" / "1" / "model.xml")
    assert model.input().get_any_name() == "images"
    assert model.output().get_any_name() == "scores"
    assert model.input().get_partial_shape() == openvino.PartialShape([-1, 32, 32, 3])
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    assert "f16" not in {op.get_element_type().get_type_name() for op in constants}


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.load` is deprecated:FutureWarning")
def test_torchscript_takes_images(exported: Exported) -> None:
    module = torch.jit.load(  # type: ignore[no-untyped-call]  # torch has not annotated it
        exported[0] / "digits" / "1" / "model.pt"
    )
    assert [argument.name for argument in module.forward.schema.arguments] == ["self", "images"]
    assert not list(module.parameters()), "a frozen module has constants in place of parameters"
