"""Scores of decoded photographs from the model file itself, in the process that decoded them."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from contract.formats import Format
from serving.backends.batching import RunFailed
from serving.backends.engine_model import Elastic
from serving.backends.options import EngineOptions

Tensor = NDArray[Any]


class ScoringFailed(Exception):
    """The model of tensors failed.

    Attributes:
        triton: Its error, for the requests.
    """

    def __init__(self, triton: Any) -> None:
        super().__init__(str(triton))
        self.triton = triton


class Scorer(Protocol):
    """What scores a batch of decoded photographs."""

    def scores(self, batch: Tensor, alone: bool) -> Tensor:
        """Score it.

        Args:
            batch: (N, H, W, 3), 0..255; an array, or a tensor on the device of a model of torch's.
            alone: Nobody else computes on this machine.

        Returns:
            (N, K), float32.

        Raises:
            ScoringFailed: The model failed.
        """


class LoadedModel:
    """A model file, loaded here."""

    def __init__(self, loaded: Elastic, input_name: str, output_name: str) -> None:
        self._loaded = loaded
        self._input = input_name
        self._output = output_name

    def scores(self, batch: Tensor, alone: bool) -> Tensor:
        """Run the engine."""
        try:
            scores: Tensor = self._loaded.engine(alone).run({self._input: batch}, [self._output])[self._output]
        except RunFailed as error:
            raise ScoringFailed(pb_utils.TritonError(str(error))) from error
        return np.asarray(scores, np.float32)


def scorer_here(version: Path, options: EngineOptions) -> LoadedModel | None:
    """The scores of the model of tensors without asking it, which spares a photograph a second process and queue.

    Args:
        version: Of the model of photographs.
        options: Whose parameter `engine` names the format that may be loaded here.

    Returns:
        None where the config names none, its engine is not installed beside this backend, or the files of the model of tensors
        are not in the folder beside, as when they come from a bucket.
    """
    parameters = options.parameters
    engine = parameters.get("engine")
    if engine is None:
        return None
    path = version.parent.with_name(parameters["model"]) / version.name / Format(engine).filenames[0]
    if not path.is_file():
        return None
    try:
        module = import_module(f"serving.backends.{Format(engine).backend}.model")
    except ModuleNotFoundError:
        return None
    names = parameters["model_input"], parameters["model_output"]
    loaded = module.TritonPythonModel.load_elastic(path, replace(options, inputs=names[:1], outputs=names[1:]))
    return LoadedModel(loaded, *names)
