"""One exporter a candidate: writes the files Triton's backend opens, and runs them in their own runtime."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

from contract.formats import Candidate, Format
from contract.tensors import IMAGES, SCORES
from export.errors import FormatFailed, one_line
from export.served import ServedModel

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
# PyTorch's own default moves with its releases; the runtime that serves may be older.
_OPSET = 20
_ONNX_ERRORS = (
    RuntimeError,
    onnx.checker.ValidationError,
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)


class Exporter(Protocol):
    """Writes and runs one format."""

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        """Write the format's files into `directory`.

        Args:
            example: (N, H, W, 3), at least two images, for exporters that watch the model run.

        Raises:
            FormatFailed: The model cannot be expressed in the format.
        """

    def load(self, directory: Path) -> Run:
        """Open the files in the format's own runtime: images (N, H, W, 3) to scores (N, K), for any N.

        Raises:
            FormatFailed: The runtime refuses the files, now or when run.
        """


class TorchScriptExporter:
    """TorchScript, traced and frozen."""

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        with failing(RuntimeError), _torchscript_in_use():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch has not annotated it
                served, torch.from_numpy(example), check_trace=False
            )
            torch.jit.save(torch.jit.freeze(traced), directory / Format.TORCHSCRIPT.filenames[0])

    def load(self, directory: Path) -> Run:
        with failing(RuntimeError), _torchscript_in_use():
            # As where it is served: otherwise each new batch size is compiled anew, for hundreds of milliseconds.
            torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
            module = torch.jit.load(  # type: ignore[no-untyped-call]  # torch has not annotated it
                directory / Format.TORCHSCRIPT.filenames[0], map_location="cpu"
            )

        def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with failing(RuntimeError), torch.inference_mode():
                scores: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
                return scores

        return run


class OnnxExporter:
    """ONNX in a single file."""

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        with failing(*_ONNX_ERRORS):
            program = torch.onnx.export(
                served,
                (torch.from_numpy(example),),
                input_names=[IMAGES],
                output_names=[SCORES],
                dynamic_shapes={IMAGES: {0: torch.export.Dim("batch", min=1)}},
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise FormatFailed("PyTorch returned no program")
            model = program.model_proto
            # PyTorch notes the source line of every node, with the paths of the machine that exported it.
            for node in model.graph.node:
                node.ClearField("metadata_props")
            onnx.checker.check_model(model, full_check=True)
            onnx.save_model(model, directory / Format.ONNX.filenames[0], save_as_external_data=False)

    def load(self, directory: Path) -> Run:
        with failing(*_ONNX_ERRORS):
            session = onnxruntime.InferenceSession(
                directory / Format.ONNX.filenames[0], providers=["CPUExecutionProvider"]
            )

        def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with failing(*_ONNX_ERRORS):
                scores: NDArray[np.float32] = session.run([SCORES], {IMAGES: images})[0]
                return scores

        return run


class OpenVinoExporter:
    """OpenVINO IR with FP32 weights, converted from an ONNX of its own: a broken ONNX file does not take it along."""

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        with TemporaryDirectory() as scratch, failing(RuntimeError):
            OnnxExporter().export(served, example, Path(scratch))
            model = openvino.Core().read_model(Path(scratch) / Format.ONNX.filenames[0])
            openvino.save_model(model, directory / Format.OPENVINO.filenames[0], compress_to_fp16=False)

    def load(self, directory: Path) -> Run:
        with failing(RuntimeError):
            # Left to itself, OpenVINO computes in BF16 on processors that have it.
            model = openvino.Core().compile_model(
                directory / Format.OPENVINO.filenames[0], "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )

        def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with failing(RuntimeError):
                scores: NDArray[np.float32] = model({IMAGES: images})[SCORES]
                return scores

        return run


@contextmanager
def failing(*errors: type[Exception]) -> Iterator[None]:
    """Turn a library's errors into the reason to drop the candidate; an operator it cannot express is named."""
    try:
        yield
    except errors as error:
        operator = _missing_operator(error)
        reason = f"the format has no operator for {operator}" if operator else one_line(error)
        raise FormatFailed(reason) from error


def _missing_operator(error: BaseException | None) -> str | None:
    """For example `torchvision.ps_roi_pool`, from wherever in the chain of causes the library names it."""
    while error is not None:
        if named := _NO_OPERATOR.search(str(error)):
            return named[1]
        error = error.__cause__
    return None


@contextmanager
def _torchscript_in_use() -> Iterator[None]:
    with warnings.catch_warnings():
        # PyTorch has deprecated TorchScript, which Triton's libtorch backend loads.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
        yield


EXPORTERS: Mapping[Candidate, Exporter] = MappingProxyType(
    {
        Candidate.TORCHSCRIPT: TorchScriptExporter(),
        Candidate.ONNX: OnnxExporter(),
        Candidate.OPENVINO: OpenVinoExporter(),
    }
)
