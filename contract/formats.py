"""The formats a model is exported to, Triton's backend for each, and what competes to be served."""

from enum import StrEnum


class Format(StrEnum):
    """What a version may hold, spelled as on the command line. Each has files of its own, so that they can lie together."""

    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"

    @property
    def backend(self) -> str:
        """Triton's name of the backend that serves it."""
        return {
            "torchscript": "pytorch",
            "onnx": "onnxruntime",
            "openvino": "openvino",
            "tensorrt": "tensorrt",
        }[self.value]

    @property
    def filenames(self) -> tuple[str, ...]:
        """The files in a version directory; the first is the one Triton's backend opens."""
        return {
            "torchscript": ("model.pt",),
            "onnx": ("model.onnx",),
            "openvino": ("model.xml", "model.bin"),
            "tensorrt": ("model.plan",),
        }[self.value]


class Candidate(StrEnum):
    """What is made and compared. Two may be of one format, and a version then holds the better of them."""

    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    OPENVINO = "openvino"
    OPENVINO_INT8 = "openvino-int8"
    TENSORRT = "tensorrt"

    @property
    def file_format(self) -> Format:
        """Whose files and backend it has."""
        return Format(self.value.removesuffix("-int8"))


class Target(StrEnum):
    """The machine `config.pbtxt` is for. Configs for the other lie beside it."""

    CPU = "cpu"
    GPU = "gpu"
