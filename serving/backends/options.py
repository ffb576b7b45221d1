"""What a model's config.pbtxt says to its engine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.formats import Format

CPU = "cpu"


class OptionInvalid(ValueError):
    """A value of `parameters` in config.pbtxt that is not understood."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options every engine reads.

    Attributes:
        threads: Threads of one instance.
        threads_alone: Threads of an instance while no other computes.
        parameters: `parameters` of config.pbtxt.
        inputs: The names of the stated inputs, in order.
        outputs: The names of the stated outputs, in order.
        device: Where Triton placed the instance: `cpu`, `cuda:0`, …
        max_batch_size: The largest batch; 0 where the model does not batch.
    """

    threads: int
    threads_alone: int
    parameters: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device: str = CPU
    max_batch_size: int = 0

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The parameter `name`, or the first of `choices`.

        Raises:
            OptionInvalid: It is none of `choices`.
        """
        value = self.parameters.get(name, choices[0])
        if value not in choices:
            raise OptionInvalid(f"parameter '{name}' is '{value}', not one of {', '.join(choices)}")
        return value


def decodes_on_gpu(options: EngineOptions) -> bool:
    """Whether photographs are decoded where the model runs: parameter `decoder`, `pillow` (the default) or `nvjpeg`.

    Raises:
        OptionInvalid: It is neither, or `nvjpeg` where the model does not run in this process, by torch, on a GPU.
    """
    wanted = options.choice("decoder", ("pillow", "nvjpeg")) == "nvjpeg"
    if wanted and (options.device == CPU or options.parameters.get("engine") != Format.TORCHSCRIPT.value):
        raise OptionInvalid(
            "parameter 'decoder' is 'nvjpeg', which needs an instance on a GPU and 'engine' 'torchscript'"
        )
    return wanted


def device_of(args: Mapping[str, str]) -> str:
    """Where an instance is to run.

    Args:
        args: As Triton passes to `initialize`.
    """
    return f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else CPU


def engine_options(config: Mapping[str, Any], device: str = CPU) -> EngineOptions:
    """Read the options.

    Raises:
        OptionInvalid: `threads` is not a positive number.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    stated = _stated_threads(parameters)
    cores = len(os.sched_getaffinity(0))
    instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
    return EngineOptions(
        # Rounded up: a core that belongs to no instance would be idle.
        threads=stated or -(-cores // instances),
        threads_alone=stated or cores,
        parameters=parameters,
        inputs=tuple(tensor["name"] for tensor in config["input"]),
        outputs=tuple(tensor["name"] for tensor in config["output"]),
        device=device,
        max_batch_size=int(config.get("max_batch_size", 0)),
    )


def _stated_threads(parameters: Mapping[str, str]) -> int | None:
    stated = parameters.get("threads")
    if stated is None:
        return None
    if not stated.isdecimal() or int(stated) < 1:
        raise OptionInvalid(f"parameter 'threads' is '{stated}', not a positive number")
    return int(stated)
