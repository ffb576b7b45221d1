"""What is asked, as bodies that are ready to send."""

import io
import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from tritonclient.grpc.service_pb2 import ModelInferRequest

PHOTOGRAPHS = "resnet50_encoded"
TENSORS = "resnet50"
TINY = "digits"
PIXEL = "pixel"
TOP_K = 5

_WIDTH = 500
_QUALITY = 90  # About 60 KB.
_SIZE = 224
IMAGE_SHAPE = (_SIZE, _SIZE, 3)
_TINY_SIZE = 32
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request.

    Attributes:
        name: J, B, T, S, H or P.
        message: The serialized ModelInferRequest.
        rest_path: Where REST takes the same, below the address.
        rest_body: What it takes.
        rest_headers: Those it needs.
    """

    name: str
    message: bytes
    rest_path: str
    rest_body: bytes
    rest_headers: dict[str, str]

    @property
    def grpc_body(self) -> bytes:
        """The message as HTTP/2 carries it: uncompressed, with its length."""
        return b"\0" + struct.pack(">I", len(self.message)) + self.message


def photograph() -> bytes:
    """scikit-learn's `china.jpg`, 500 pixels wide, as a JPEG of about 60 KB."""
    image = Image.fromarray(load_sample_image("china.jpg"))
    image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return file.getvalue()


def all_workloads() -> dict[str, Workload]:
    """By name."""
    workloads = (
        photographs_to(PHOTOGRAPHS, 1),
        photographs_to(PHOTOGRAPHS, 8),
        _tensors("T", TENSORS, _images(_BATCH, _SIZE)),
        tiny_to(TINY),
        _tensors("H", TINY, _images(1, _TINY_SIZE)),
    )
    return {workload.name: workload for workload in workloads}


def tiny_to(model: str) -> Workload:
    """S, to a model like `digits`."""
    return _tensors("S", model, _images(1, _TINY_SIZE))


def passed() -> Workload:
    """P: what T sends, to a model that computes nothing, so that many are soon answered."""
    return _tensors("P", PIXEL, _images(_BATCH, _SIZE))


def _images(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def photographs_to(model: str, count: int) -> Workload:
    """J, or B where there are several, to a model like `resnet50_encoded` over gRPC; over REST always to that."""
    name = "J" if count == 1 else "B"
    file = photograph()
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="encoded", datatype="BYTES", shape=[count, 1])
    request.raw_input_contents.append((struct.pack("<I", len(file)) + file) * count)
    request.outputs.add(name="scores").parameters["classification"].int64_param = TOP_K
    request.outputs.add(name="error")
    path = f"/v1/models/{TENSORS}/classify?top_k={TOP_K}"
    if count == 1:
        body, content_type = file, "image/jpeg"
    else:
        body, content_type = form([file] * count)
    return Workload(name, request.SerializeToString(), path, body, {"content-type": content_type})


def form(files: list[bytes]) -> tuple[bytes, str]:
    """A form of JPEGs, and its content type."""
    boundary = "tidegate-bench"
    part = f'--{boundary}\r\ncontent-disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'.encode()
    body = b"".join(part + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _tensors(name: str, model: str, images: NDArray[np.uint8]) -> Workload:
    raw = images.tobytes()
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    request.raw_input_contents.append(raw)
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": images.shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    path = f"/v2/models/{model}/infer"
    return Workload(name, request.SerializeToString(), path, head + raw, headers)
