"""Tiny models in every format, written to a repository."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contract.card import Batching, Card, Preprocessing
from contract.formats import Format
from contract.model_config import encoded_model_config, model_config, to_pbtxt
from contract.repository import PREPROCESSING

Shape = Sequence[int | str]

CARD = Card(
    name="channels",
    labels=("red", "green", "blue"),
    preprocessing=Preprocessing(height=8, width=8),
    batching=Batching(max_batch_size=64, max_queue_delay_us=50_000),
)
# Its photographs are scored by the model of tensors, where CARD's load that model's file themselves.
ASKING = CARD.model_copy(update={"name": "asking"})


def place(repository: Path, name: str, config: str, filename: str, content: bytes) -> None:
    """Write version 1 of a model."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (version / filename).write_bytes(content)


def tensor(name: str, element_type: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """An ONNX model of the given nodes."""
    made = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def doubling(batch: int | str = "N") -> onnx.ModelProto:
    """x (N, 3) → doubled and next, x + 1."""
    return graph(
        [helper.make_node("Add", ["x", "x"], ["doubled"]), helper.make_node("Add", ["x", "one"], ["next"])],
        [tensor("x", TensorProto.FLOAT, [batch, 3])],
        [tensor("doubled", TensorProto.FLOAT, [batch, 3]), tensor("next", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )


def lookup() -> onnx.ModelProto:
    """ids (N, L) → the squares of 0..9 at those places; another id fails the run."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [10], [float(i * i) for i in range(10)])
    return graph(
        [helper.make_node("Gather", ["table", "ids"], ["values"])],
        [tensor("ids", TensorProto.INT64, ["N", "L"])],
        [tensor("values", TensorProto.FLOAT, ["N", "L"])],
        [table],
    )


TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def echo() -> onnx.ModelProto:
    """in_TYPE (N, 2) → out_TYPE, the same, for every type."""
    return graph(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES],
        [tensor(f"in_{name}", element_type, ["N", 2]) for name, element_type in TYPES.items()],
        [tensor(f"out_{name}", element_type, ["N", 2]) for name, element_type in TYPES.items()],
    )


def channel_means(size: int = 8) -> onnx.ModelProto:
    """images UINT8 (N, size, size, 3) → scores, the mean of each channel."""
    return graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["scores"], axes=[1, 2], keepdims=0),
        ],
        [tensor("images", TensorProto.UINT8, ["N", size, size, 3])],
        [tensor("scores", TensorProto.FLOAT, ["N", 3])],
    )


class SumAndDifference(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right, left - right


def write_onnx(repository: Path, name: str, config: str, model: onnx.ModelProto) -> None:
    place(repository, name, config, "model.onnx", model.SerializeToString())


def write_openvino(repository: Path, name: str, config: str, model: onnx.ModelProto) -> None:
    source = repository / f"{name}.onnx"
    onnx.save(model, source)
    place(repository, name, config, "source.onnx", b"")
    openvino.save_model(openvino.convert_model(source), repository / name / "1" / "model.xml", compress_to_fp16=False)
    source.unlink()


def write_torchscript(repository: Path, name: str, config: str) -> None:
    place(repository, name, config, "source.txt", b"")
    example = (torch.zeros(1, 2), torch.zeros(1, 2))
    with warnings.catch_warnings():
        # TorchScript is deprecated, and still served.
        warnings.simplefilter("ignore", FutureWarning)
        traced: Any = torch.jit.trace(SumAndDifference().eval(), example)  # type: ignore[no-untyped-call]  # torch's
        traced.save(str(repository / name / "1" / "model.pt"))


def write_channels(repository: Path, card: Card = CARD, *, engine: bool = True, threads: int | None = None) -> None:
    """The two models of a card, as export writes them.

    Args:
        engine: The model of photographs may load the other's file.
        threads: Of an instance of the model of photographs.
    """
    size = card.preprocessing.height
    encoded = encoded_model_config(card, Format.ONNX)
    if not engine:
        del encoded.parameters["engine"]
    if threads is not None:
        encoded.parameters["threads"].string_value = str(threads)
    write_onnx(repository, card.name, to_pbtxt(model_config(card, Format.ONNX)), channel_means(size))
    place(
        repository,
        card.encoded_name,
        to_pbtxt(encoded),
        PREPROCESSING,
        card.preprocessing.model_dump_json().encode(),
    )
    for name in (card.name, card.encoded_name):
        (repository / name / "labels.txt").write_text("\n".join(card.labels) + "\n")


def every_type() -> dict[str, NDArray[Any]]:
    """Two rows of each type that `echo` takes."""
    arrays = {
        name: np.array([[0, 1], [1, 0]]).astype(helper.tensor_dtype_to_np_dtype(element_type))
        for name, element_type in TYPES.items()
        if name != "BYTES"
    }
    texts = np.array([[b"", "Tidehöhe".encode()], [b"a\0b", b"x" * 5_000]], dtype=np.object_)
    return {**arrays, "BYTES": texts}
