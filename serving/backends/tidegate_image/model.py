"""Triton's backend `tidegate_image`: photographs in, the scores of a model of tensors out."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from PIL import Image, ImageFile

from contract.card import ImageLimits, Preprocessing
from contract.tensors import ENCODED, ERROR, SCORES
from serving.backends.integrity import check_version
from serving.images import ImageRefused, Pixels, prepare

Tensor = NDArray[Any]


class TritonPythonModel:
    """One instance of a model; Triton looks for this name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by Triton once in each instance's process."""
        check_version(args)
        # Pillow's own limit is one for the whole process, warns, and would overrule a model's.
        Image.MAX_IMAGE_PIXELS = None
        config: dict[str, Any] = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        card = Path(args["model_repository"], args["model_version"], config["default_model_filename"])
        self._preprocessing = Preprocessing.model_validate_json(card.read_bytes())
        limits = {name: parameters[name] for name in ImageLimits.model_fields if name in parameters}
        self._limits = ImageLimits.model_validate(limits)
        # Pillow has one for a whole process, which is this model's own.
        ImageFile.LOAD_TRUNCATED_IMAGES = self._limits.truncated == "serve"
        self._model = parameters["model"]
        self._model_version = int(args["model_version"])
        self._model_input = parameters["model_input"]
        self._model_output = parameters["model_output"]
        self._classes = next(int(tensor["dims"][0]) for tensor in config["output"] if tensor["name"] == SCORES)
        threads = int(parameters.get("threads", len(os.sched_getaffinity(0))))
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one dynamic batch; answers each, in order."""
        files = [pb_utils.get_input_tensor_by_name(request, ENCODED).as_numpy().ravel() for request in requests]
        images = list(self._decoders.map(self._prepare, np.concatenate(files)))
        good = np.array([not isinstance(image, ImageRefused) for image in images])
        scores, failure = self._score(images, good)
        errors = np.array([str(image).encode() if isinstance(image, ImageRefused) else b"" for image in images], object)
        responses = []
        end = 0
        for request, own_files in zip(requests, files, strict=True):
            start, end = end, end + len(own_files)
            if failure is not None and good[start:end].any():
                responses.append(pb_utils.InferenceResponse(error=failure))
            else:
                outputs = {SCORES: scores[start:end], ERROR: errors[start:end].reshape(-1, 1)}
                responses.append(_response(request, outputs))
        return responses

    def finalize(self) -> None:
        """Called by Triton when the instance is unloaded."""
        self._decoders.shutdown()

    def _prepare(self, encoded: bytes) -> Pixels | ImageRefused:
        try:
            return prepare(encoded, self._preprocessing, self._limits)
        except ImageRefused as error:
            return error

    def _score(self, images: Sequence[Pixels | ImageRefused], good: Tensor) -> tuple[Tensor, Any]:
        """Ask the model of tensors, in its version of the same number, for the scores of the good images.

        Returns:
            Scores of all images, (N, K), NaN where there are none; and Triton's error where that model failed.
        """
        scores = np.full((len(images), self._classes), np.nan, dtype=np.float32)
        if not good.any():
            return scores, None
        batch = np.stack([image for image in images if not isinstance(image, ImageRefused)])
        reply = pb_utils.InferenceRequest(
            model_name=self._model,
            model_version=self._model_version,
            requested_output_names=[self._model_output],
            inputs=[pb_utils.Tensor(self._model_input, batch)],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if reply.has_error():
            return scores, reply.error()
        scores[good] = pb_utils.get_output_tensor_by_name(reply, self._model_output).as_numpy()
        return scores, None


def _response(request: Any, tensors: Mapping[str, Tensor]) -> Any:
    asked = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensors[name]) for name in asked])
