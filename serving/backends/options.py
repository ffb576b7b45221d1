"""What a model's config.pbtxt says to its engine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class OptionInvalid(ValueError):
    """A value of `parameters` in config.pbtxt that is not understood."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options every engine reads.

    Attributes:
        threads: Threads of one instance.
        parameters: `parameters` of config.pbtxt.
        inputs: The names of the stated inputs, in order.
        outputs: The names of the stated outputs, in order.
    """

    threads: int
    parameters: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The parameter `name`, or the first of `choices`.

        Raises:
            OptionInvalid: It is none of `choices`.
        """
        value = self.parameters.get(name, choices[0])
        if value not in choices:
            raise OptionInvalid(f"parameter '{name}' is '{value}', not one of {', '.join(choices)}")
        return value


def engine_options(config: Mapping[str, Any]) -> EngineOptions:
    """Read the options.

    Raises:
        OptionInvalid: `threads` is not a positive number.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    return EngineOptions(
        threads=_threads(config, parameters),
        parameters=parameters,
        inputs=tuple(tensor["name"] for tensor in config["input"]),
        outputs=tuple(tensor["name"] for tensor in config["output"]),
    )


def _threads(config: Mapping[str, Any], parameters: Mapping[str, str]) -> int:
    if (stated := parameters.get("threads")) is not None:
        if not stated.isdecimal() or int(stated) < 1:
            raise OptionInvalid(f"parameter 'threads' is '{stated}', not a positive number")
        return int(stated)
    instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
    return max(1, len(os.sched_getaffinity(0)) // instances)
