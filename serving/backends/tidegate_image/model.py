"""Triton's backend `tidegate_image`: photographs in, the scores of a model of tensors out."""

import json
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
from serving.backends.cores import Cores
from serving.backends.integrity import check_version
from serving.backends.options import EngineOptions, OptionInvalid, decodes_on_gpu, device_of, engine_options
from serving.backends.scorers import Scorer, ScoringFailed, scorer_here
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
        version = Path(args["model_repository"], args["model_version"])
        options = engine_options(config, device_of(args))
        card = version / config["default_model_filename"]
        self._preprocessing = Preprocessing.model_validate_json(card.read_bytes())
        limits = {name: value for name, value in options.parameters.items() if name in ImageLimits.model_fields}
        self._limits = ImageLimits.model_validate(limits)
        # Pillow has one for a whole process, which is this model's own.
        ImageFile.LOAD_TRUNCATED_IMAGES = self._limits.truncated == "serve"
        self._classes = next(int(tensor["dims"][0]) for tensor in config["output"] if tensor["name"] == SCORES)
        scorer = scorer_here(version, options)
        self._on_device = self._device_decoder(options, scorer)
        self._scorer: Scorer = scorer or OtherModel(options.parameters, version.name)
        self._cores = Cores()
        self._threads = {False: options.threads, True: options.threads_alone}
        # A pool makes its threads when there is work for them.
        self._decoders = {threads: ThreadPoolExecutor(threads) for threads in self._threads.values()}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one dynamic batch; answers each, in order."""
        files = [pb_utils.get_input_tensor_by_name(request, ENCODED).as_numpy().ravel() for request in requests]
        with self._cores.compute() as alone:
            # Several were gathered while the instances were busy, and will be again.
            alone = alone and len(requests) == 1
            images = self._decoded(np.concatenate(files), alone)
            good = np.array([not isinstance(image, ImageRefused) for image in images])
            scores, failure = self._score(images, good, alone and not self._cores.short)
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
        for decoders in self._decoders.values():
            decoders.shutdown()
        self._cores.close()

    def _device_decoder(self, options: EngineOptions, scorer: Scorer | None) -> Any:
        if not decodes_on_gpu(options):
            return None
        if scorer is None:
            raise OptionInvalid(
                "parameter 'decoder' is 'nvjpeg', and torch or the file of the model of tensors is not here"
            )
        from serving.backends.pytorch.photographs import DeviceDecoder

        return DeviceDecoder(options.device, self._preprocessing, self._limits)

    def _decoded(self, files: Sequence[bytes], alone: bool) -> list[Any]:
        """Each image, or why there is none; on the GPU, or this instance's share of the cores, or all where they are idle."""
        images = [None] * len(files) if self._on_device is None else self._on_device.decode(files)
        rest = [file for file, image in zip(files, images, strict=True) if image is None]
        threads = self._threads[alone]
        decode = map if min(threads, len(rest)) <= 1 else self._decoders[threads].map
        others = iter(decode(self._prepare, rest))
        return [next(others) if image is None else image for image in images]

    def _prepare(self, encoded: bytes) -> Pixels | ImageRefused:
        try:
            return prepare(encoded, self._preprocessing, self._limits)
        except ImageRefused as error:
            return error

    def _score(self, images: Sequence[Any], good: Tensor, alone: bool) -> tuple[Tensor, Any]:
        """Score the good images.

        Returns:
            Scores of all images, (N, K), NaN where there are none; and Triton's error where the model failed.
        """
        scores = np.full((len(images), self._classes), np.nan, dtype=np.float32)
        if not good.any():
            return scores, None
        stack = np.stack if self._on_device is None else self._on_device.stack
        batch = stack([image for image in images if not isinstance(image, ImageRefused)])
        try:
            scores[good] = self._scorer.scores(batch, alone)
        except ScoringFailed as error:
            return scores, error.triton
        return scores, None


class OtherModel:
    """The model of tensors, in its version of the same number, wherever Triton runs it."""

    def __init__(self, parameters: Mapping[str, str], version: str) -> None:
        self._model = parameters["model"]
        self._version = int(version)
        self._input = parameters["model_input"]
        self._output = parameters["model_output"]

    def scores(self, batch: Tensor, alone: bool) -> Tensor:
        """Ask it.

        Raises:
            ScoringFailed: It failed.
        """
        reply = pb_utils.InferenceRequest(
            model_name=self._model,
            model_version=self._version,
            requested_output_names=[self._output],
            inputs=[pb_utils.Tensor(self._input, batch)],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if reply.has_error():
            raise ScoringFailed(reply.error())
        scores: Tensor = pb_utils.get_output_tensor_by_name(reply, self._output).as_numpy()
        return scores


def _response(request: Any, tensors: Mapping[str, Tensor]) -> Any:
    asked = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensors[name]) for name in asked])
