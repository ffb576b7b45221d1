"""Requests made before the load begins, as the bytes that are sent, so that making them costs the client nothing."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import InferParameter, ModelInferRequest, ModelMetadataResponse

from contract.card import ENCODED_SUFFIX
from loadtest import pictures
from loadtest.errors import BadLoad
from loadtest.settings import Kind, LoadSettings, Tenant

_MARK = "load_mark"
_NO_MARK = b"0" * 16
_BOUNDARY = "tidegate-load"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of one, but for a mark of 16 characters that can tell it from every other.

    Attributes:
        path: Of a REST request.
        headers: Likewise.
    """

    head: bytes
    tail: bytes = b""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def body(self, mark: bytes = _NO_MARK) -> bytes:
        """All of it, with the mark in its place."""
        return self.head + mark + self.tail


def target(model: str, kind: Kind) -> str:
    """The model in Triton that answers."""
    return model + ENCODED_SUFFIX if kind in (Kind.ENCODED, Kind.CLASSIFY) else model


def make_requests(metadata: ModelMetadataResponse, settings: LoadSettings, tenant: Tenant) -> list[Request]:
    """The requests of a tenant.

    Args:
        metadata: Of the model that is to answer them.

    Raises:
        BadLoad: The model takes something else, or there are no images.
    """
    kind, size = tenant.kind or settings.kind, tenant.batch_size or settings.batch_size
    if kind in (Kind.TENSORS, Kind.REST):
        height, width = _image_size(metadata)
        arrays = pictures.arrays(settings.images, settings.distinct, height, width)
        make = _tensors if kind is Kind.TENSORS else _rest
        return [make(metadata, np.stack(batch), tenant.priority) for batch in _batches(arrays, size)]
    files = pictures.files(settings.images, settings.distinct)
    if kind is Kind.ENCODED:
        return [_encoded(metadata, batch, tenant.priority) for batch in _batches(files, size)]
    return [_classify(settings.model, batch) for batch in _batches(files, size)]


def _batches(images: Sequence[T], size: int) -> Iterator[list[T]]:
    """Every image once, where they fill a batch; the last batch is filled up with the first images."""
    for start in range(0, len(images), size):
        yield [images[index % len(images)] for index in range(start, start + size)]


def _image_size(metadata: ModelMetadataResponse) -> tuple[int, int]:
    if (
        len(metadata.inputs) != 1
        or metadata.inputs[0].datatype != "UINT8"
        or len(metadata.inputs[0].shape) != 4
        or min(metadata.inputs[0].shape[1:]) < 1
        or metadata.inputs[0].shape[3] != 3
    ):
        raise BadLoad(f"model {metadata.name!r} does not take one UINT8 image tensor (N, H, W, 3) of a fixed size")
    _, height, width, _ = metadata.inputs[0].shape
    return height, width


def _tensors(metadata: ModelMetadataResponse, images: NDArray[np.uint8], priority: int) -> Request:
    (tensor,) = metadata.inputs
    return _over_grpc(metadata.name, tensor.name, tensor.datatype, images.shape, images.tobytes(), priority)


def _encoded(metadata: ModelMetadataResponse, files: Sequence[bytes], priority: int) -> Request:
    content = b"".join(struct.pack("<I", len(file)) + file for file in files)
    (tensor,) = metadata.inputs
    return _over_grpc(metadata.name, tensor.name, tensor.datatype, (len(files), 1), content, priority)


def _over_grpc(model: str, tensor: str, datatype: str, shape: Sequence[int], content: bytes, priority: int) -> Request:
    request = ModelInferRequest(model_name=model, raw_input_contents=[content])
    request.inputs.add(name=tensor, datatype=datatype, shape=shape)
    if priority:
        request.parameters["priority"].int64_param = priority
    # A parameter more at the end of the message is one more in the map; the mark is the end of its text.
    mark = ModelInferRequest(parameters={_MARK: InferParameter(string_param=_NO_MARK.decode())}).SerializeToString()
    return Request(request.SerializeToString() + mark.removesuffix(_NO_MARK))


def _rest(metadata: ModelMetadataResponse, images: NDArray[np.uint8], priority: int) -> Request:
    (tensor,) = metadata.inputs
    content = images.tobytes()
    described = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": images.shape,
        "parameters": {"binary_data_size": len(content)},
    }
    parameters: dict[str, object] = {"binary_data_output": True, _MARK: _NO_MARK.decode()}
    if priority:
        parameters["priority"] = priority
    text = json.dumps({"inputs": [described], "parameters": parameters}).encode()
    head, _, tail = text.rpartition(_NO_MARK)
    headers = (("Inference-Header-Content-Length", str(len(text))), ("Content-Type", "application/octet-stream"))
    return Request(head, tail + content, f"/v2/models/{metadata.name}/infer", headers)


def _classify(model: str, files: Sequence[bytes]) -> Request:
    """Decoders ignore what follows the end of an image, so that the mark has its place there."""
    path = f"/v1/models/{model}/classify"
    if len(files) == 1:
        return Request(files[0], path=path, headers=(("Content-Type", "application/octet-stream"),))
    form = b"".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{number}"\r\n\r\n'.encode()
        + file
        + b"\r\n"
        for number, file in enumerate(files)
    )
    headers = (("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),)
    return Request(form.removesuffix(b"\r\n"), f"\r\n--{_BOUNDARY}--\r\n".encode(), path, headers)
