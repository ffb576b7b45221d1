"""TensorRT plans, built by torch-tensorrt on the machine whose GPU will run them."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contract.formats import Format
from contract.model_config import TENSORRT_OUTPUT
from contract.tensors import IMAGES
from export.errors import FormatFailed
from export.exporters import Run, failing
from export.served import ServedModel


def refusal() -> str | None:
    """Why this machine cannot build a plan; None where it can."""
    if not torch.cuda.is_available():
        return (
            "a plan is built on the GPU that runs it, and this machine has no CUDA GPU; "
            "configs/gpu.pbtxt has Triton build it from the ONNX file"
        )
    if find_spec("torch_tensorrt") is None:
        return "torch-tensorrt is not installed; `make install-tensorrt` does it"
    return None


class TensorRtExporter:
    """A plan in FP32 for batches of one to the card's largest.

    Args:
        max_batch_size: The largest batch, which the plan is tuned for.
    """

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        with failing(RuntimeError):
            # Several gigabytes, and only there where a GPU is.
            import torch_tensorrt

            shape = example.shape[1:]
            program = torch.export.export(
                served.cuda(),
                (torch.from_numpy(example).cuda(),),
                dynamic_shapes={IMAGES: {0: torch.export.Dim("batch", min=1, max=self._max_batch_size)}},
            )
            plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                inputs=[
                    torch_tensorrt.Input(
                        min_shape=(1, *shape),
                        opt_shape=(self._max_batch_size, *shape),
                        max_shape=(self._max_batch_size, *shape),
                        dtype=torch.uint8,
                        name=IMAGES,
                    )
                ],
                disable_tf32=True,
            )
            (directory / Format.TENSORRT.filenames[0]).write_bytes(plan)

    def load(self, directory: Path) -> Run:
        with failing(RuntimeError):
            import tensorrt

            runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
            engine = runtime.deserialize_cuda_engine((directory / Format.TENSORRT.filenames[0]).read_bytes())
        if engine is None:
            raise FormatFailed("TensorRT refuses the plan")
        context = engine.create_execution_context()
        classes = engine.get_tensor_shape(TENSORRT_OUTPUT)[-1]

        def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with failing(RuntimeError):
                batch = torch.from_numpy(images).cuda().contiguous()
                scores = torch.empty((len(images), classes), dtype=torch.float32, device="cuda")
                context.set_input_shape(IMAGES, tuple(batch.shape))
                context.set_tensor_address(IMAGES, batch.data_ptr())
                context.set_tensor_address(TENSORRT_OUTPUT, scores.data_ptr())
                if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
                    raise FormatFailed("TensorRT could not run the plan")
                result: NDArray[np.float32] = scores.cpu().numpy()
                return result

        return run
