"""What Triton's python stub calls, for every engine that runs a model file."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import triton_python_backend_utils as pb_utils

from serving.backends import signature
from serving.backends.batching import Call, RunFailed, Tensors, run_calls
from serving.backends.integrity import check_version
from serving.backends.options import EngineOptions, engine_options
from serving.backends.signature import CompletableConfig, Signature


class Engine(Protocol):
    """A loaded model file."""

    @property
    def signature(self) -> Signature:
        """Its tensors."""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute the named outputs.

        Raises:
            RunFailed: It refuses the inputs.
        """


class EngineModel(ABC):
    """Completes and checks the config, loads the engine, and runs each execution's requests as one batch."""

    @classmethod
    @abstractmethod
    def read_signature(cls, path: Path, options: EngineOptions) -> Signature:
        """Read the tensors of a file, without the cost of making it ready to run."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, options: EngineOptions) -> Engine:
        """Make a file ready to run."""

    @classmethod
    def auto_complete_config(cls, config: CompletableConfig) -> CompletableConfig:
        """Called by Triton, in a process of its own, before the model is loaded."""
        stated = config.as_dict()
        if not signature.states_tensors(stated):
            signature.complete(config, cls.read_signature(_file_being_completed(), engine_options(stated)))
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by Triton once in each instance's process."""
        check_version(args)
        config: dict[str, Any] = json.loads(args["model_config"])
        path = Path(args["model_repository"], args["model_version"], config["default_model_filename"])
        self._engine = self.load(path, engine_options(config))
        self._batches = config["max_batch_size"] > 0
        signature.check(config, self._engine.signature)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one dynamic batch; answers each, in order."""
        calls = [
            Call(
                inputs={tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
                outputs=tuple(request.requested_output_names()),
            )
            for request in requests
        ]
        return [_response(result) for result in run_calls(self._engine.run, calls, batches=self._batches)]


def _response(result: Tensors | RunFailed) -> Any:
    if isinstance(result, RunFailed):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in result.items()])


def _file_being_completed() -> Path:
    # The stub's own command line is the only place that names it: STUB MODEL_FILE …
    return Path(Path("/proc/self/cmdline").read_text().split("\0")[1])
