"""Compares a running server with the eager model, all the way from the door to the backend."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from contract.formats import Format
from contract.manifest import Manifest
from contract.tensors import ENCODED, IMAGES
from export.errors import LiveCheckFailed, one_line
from export.gates import FP32
from export.golden import GoldenImages, Pixels, Scores

# The golden images are few of the many that a format was verified on, and another processor rounds integers otherwise.
_OF_MEASURED_ERROR = 2.0
# A float of 16 bits is exact to one part in 2,000; a network's layers together may lose twenty times that.
_FP16_OF_LARGEST_SCORE = 0.01
_CALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A golden image's scores from the running server.

    Attributes:
        model: NAME or NAME_encoded.
        image: Its place among the golden images.
        size: Its height and width, pixels.
        difference: The largest of any score from the eager model's; NaN where the image was refused.
    """

    model: str
    image: int
    size: tuple[int, ...]
    difference: float


@dataclass(frozen=True, slots=True)
class Parity:
    """How a running server compares with the eager model.

    Attributes:
        tolerance: How far a score may be off.
    """

    answers: Sequence[Answer]
    tolerance: float

    @property
    def failures(self) -> tuple[Answer, ...]:
        """The answers beyond the tolerance, largest first."""
        beyond = [answer for answer in self.answers if not answer.difference <= self.tolerance]
        return tuple(sorted(beyond, key=lambda answer: np.nan_to_num(answer.difference, nan=np.inf), reverse=True))

    @property
    def largest(self) -> float:
        """Of the differences."""
        return max(answer.difference for answer in self.answers)


def tolerance(manifest: Manifest, config: ModelConfig, golden: GoldenImages) -> float:
    """How far a score of the running server may be from the eager model's.

    An FP32 format may be off by rounding. A quantised one is off by design, by as much as its verification measured and
    accepted; what is served is held to twice that. What is compiled to FP16 where it is served was never measured; it is
    held to a share of the largest score.

    Args:
        config: As the server runs it.

    Raises:
        LiveCheckFailed: It runs a file that is not of this version.
    """
    allowed = FP32.max_abs_error + _OF_MEASURED_ERROR * manifest.formats[_format(manifest, config)].max_abs_error
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if any(accelerator.parameters["precision_mode"] == "FP16" for accelerator in accelerators):
        allowed += _FP16_OF_LARGEST_SCORE * float(np.abs(golden.scores).max())
    return allowed


def _format(manifest: Manifest, config: ModelConfig) -> Format:
    for format_ in manifest.formats:
        if format_.filenames[0] == config.default_model_filename:
            return format_
    raise LiveCheckFailed(
        f"{manifest.model}: the server opens {config.default_model_filename!r}, which is not of version "
        f"{manifest.version}"
    )


def check_live(
    address: str, key: str | None, manifest: Manifest, golden: GoldenImages, connection: Mapping[str, Any] | None = None
) -> Parity:
    """Send the golden images to one version of both models, in one batch and alone.

    Args:
        address: host:port of the gateway's gRPC service.
        key: An API key that may infer and read; None: the gateway asks for none.
        connection: Further arguments of Triton's client; None: it speaks no TLS.

    Raises:
        LiveCheckFailed: The version is not served, or the server does not answer.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        return asyncio.run(_check(address, connection or {}, headers, manifest, golden))
    except (InferenceServerException, grpc.RpcError) as error:
        raise LiveCheckFailed(f"{manifest.model} {manifest.version}: {one_line(error)}") from error


async def _check(
    address: str, connection: Mapping[str, Any], headers: dict[str, str], manifest: Manifest, golden: GoldenImages
) -> Parity:
    model, encoded_model, version = manifest.card.name, manifest.card.encoded_name, str(manifest.version)
    # A parameter that no other request has: an answer from the gateway's cache would prove nothing.
    parameters = {"live_check": uuid4().hex}
    pictures = [golden.pixels(index) for index in range(len(golden.files))]

    async with triton.InferenceServerClient(address, **connection) as client:
        reply = await client.get_model_config(model, version, headers=headers, client_timeout=_CALL_S)
        outputs = {model: reply.config.output[0].name, encoded_model: manifest.card.scores.name}

        async def scores(asked: str, indices: Sequence[int]) -> Scores:
            tensor = _encoded(golden, indices) if asked == encoded_model else _images(pictures, indices)
            answer = await client.infer(
                asked,
                [tensor],
                model_version=version,
                headers=headers,
                parameters=parameters,
                client_timeout=_CALL_S,
            )
            found: Scores = answer.as_numpy(outputs[asked])
            return found

        fitting = [index for index, picture in enumerate(pictures) if picture.shape == manifest.card.images.dims]
        calls = [
            (asked, indices[start : start + size])
            for asked, indices in ((model, fitting), (encoded_model, list(range(len(pictures)))))
            for size in (1, manifest.card.batching.max_batch_size)
            for start in range(0, len(indices), size)
        ]
        found = await asyncio.gather(*(scores(asked, indices) for asked, indices in calls))
    answers = [
        Answer(asked, index, pictures[index].shape[:2], float(np.abs(row - golden.scores[index]).max()))
        for (asked, indices), rows in zip(calls, found, strict=True)
        for index, row in zip(indices, rows, strict=True)
    ]
    return Parity(answers, tolerance(manifest, reply.config, golden))


def _images(pictures: Sequence[Pixels], indices: Sequence[int]) -> triton.InferInput:
    images = np.stack([pictures[index] for index in indices])
    tensor = triton.InferInput(IMAGES, list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return tensor


def _encoded(golden: GoldenImages, indices: Sequence[int]) -> triton.InferInput:
    files = np.array([golden.files[index] for index in indices], np.object_).reshape(-1, 1)
    tensor = triton.InferInput(ENCODED, list(files.shape), "BYTES")
    tensor.set_data_from_numpy(files)
    return tensor
