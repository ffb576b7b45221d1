"""What Triton's python stub calls, for every engine that runs a model file."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import triton_python_backend_utils as pb_utils

from serving.backends import signature
from serving.backends.batching import Call, RunFailed, Tensors, run_calls
from serving.backends.cores import Cores
from serving.backends.integrity import check_version
from serving.backends.options import EngineOptions, device_of, engine_options
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


@dataclass(frozen=True, slots=True)
class Elastic:
    """A model file made ready twice.

    A core that is shared is not gained by more threads, and one that is idle is lost without them: on two cores ResNet-50
    in 8 bits answers one image in half the time with both, and two instances that use both 2 to 4 % fewer images a second.

    Attributes:
        share: On an instance's share of the cores.
        whole: On all of them.
    """

    share: Engine
    whole: Engine

    def engine(self, alone: bool) -> Engine:
        """The one to run.

        Args:
            alone: Nobody else computes.
        """
        return self.whole if alone else self.share


class EngineModel(ABC):
    """Completes and checks the config, loads the engine, and runs each execution's requests as one batch.

    Attributes:
        elastic: Whether engines of different numbers of threads go together in a process.
    """

    elastic: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def read_signature(cls, path: Path, options: EngineOptions) -> Signature:
        """Read the tensors of a file, without the cost of making it ready to run."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, options: EngineOptions) -> Engine:
        """Make a file ready to run."""

    @classmethod
    def load_elastic(cls, path: Path, options: EngineOptions) -> Elastic:
        """Make a file ready for an instance's share of the cores, and for all of them where that is more."""
        share = cls.load(path, options)
        if not cls.elastic or options.threads_alone <= options.threads:
            return Elastic(share, share)
        return Elastic(share, cls.load(path, replace(options, threads=options.threads_alone)))

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
        self._loaded = self.load_elastic(path, engine_options(config, device_of(args)))
        self._cores = Cores()
        self._batches = config["max_batch_size"] > 0
        signature.check(config, self._loaded.share.signature)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one dynamic batch; answers each, in order."""
        calls = [
            Call(
                inputs={tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
                outputs=tuple(request.requested_output_names()),
            )
            for request in requests
        ]
        with self._cores.compute() as alone:
            # Several were gathered while the instances were busy, and will be again.
            engine = self._loaded.engine(alone and len(calls) == 1 and not self._cores.short)
            results = run_calls(engine.run, calls, batches=self._batches)
        return [_response(result) for result in results]

    def finalize(self) -> None:
        """Called by Triton when the instance is unloaded."""
        self._cores.close()


def _response(result: Tensors | RunFailed) -> Any:
    if isinstance(result, RunFailed):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in result.items()])


def _file_being_completed() -> Path:
    # The stub's own command line is the only place that names it: STUB MODEL_FILE …
    return Path(Path("/proc/self/cmdline").read_text().split("\0")[1])
