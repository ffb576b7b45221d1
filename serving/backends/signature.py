"""The tensors a model file takes and gives, and what its config.pbtxt says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# What a card's batching says when nothing is chosen; Triton's own completion takes 4, which a CPU is not filled by.
COMPLETED_MAX_BATCH_SIZE = 32


class SignatureMismatch(ValueError):
    """config.pbtxt and the model file disagree, or the file holds what Triton cannot serve."""


class CompletableConfig(Protocol):
    """What the python backend passes to `auto_complete_config`."""

    def as_dict(self) -> dict[str, Any]: ...

    def add_input(self, input: Mapping[str, Any]) -> None: ...

    def add_output(self, output: Mapping[str, Any]) -> None: ...

    def set_max_batch_size(self, max_batch_size: int) -> None: ...

    def set_dynamic_batching(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor as the model file describes it.

    Attributes:
        data_type: As in config.pbtxt, for example TYPE_FP32; None where the file does not say.
        dims: The whole shape, a batch dimension included; -1 where any size goes. None where the file does not say.
    """

    name: str
    data_type: str | None
    dims: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """All tensors of a model file."""

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]

    @property
    def batches(self) -> bool:
        """Whether the first dimension of every tensor is a batch of any size."""
        shapes = [tensor.dims for tensor in (*self.inputs, *self.outputs)]
        return all(dims is not None and len(dims) > 1 and dims[0] == -1 for dims in shapes)


def states_tensors(config: Mapping[str, Any]) -> bool:
    """Whether config.pbtxt leaves nothing for its backend to complete."""
    return bool(config["input"] and config["output"])


def complete(config: CompletableConfig, signature: Signature) -> None:
    """Add the tensors that config.pbtxt does not state, and batching where it states none of them.

    Where it states some, its max_batch_size is taken as meant: 0 cannot be told from an absent one.
    """
    stated = config.as_dict()
    if not stated["input"] and not stated["output"] and stated["max_batch_size"] == 0 and signature.batches:
        config.set_max_batch_size(COMPLETED_MAX_BATCH_SIZE)
    batches = config.as_dict()["max_batch_size"] > 0
    if batches and not {"sequence_batching", "ensemble_scheduling"} & stated.keys():
        config.set_dynamic_batching()
    if not stated["input"]:
        for tensor in signature.inputs:
            config.add_input(_stated(tensor, batches))
    if not stated["output"]:
        for tensor in signature.outputs:
            config.add_output(_stated(tensor, batches))


def _stated(tensor: FileTensor, batches: bool) -> dict[str, Any]:
    dims = (tensor.dims or ())[batches:]
    if tensor.data_type is None or not dims:
        raise SignatureMismatch(f"tensor '{tensor.name}' of the model file has no shape that config.pbtxt could state")
    return {"name": tensor.name, "data_type": tensor.data_type, "dims": list(dims)}


def check(config: Mapping[str, Any], signature: Signature) -> None:
    """Compare config.pbtxt with the file: every input of the file, and each stated output.

    Raises:
        SignatureMismatch: The message names the tensor, what the file has and what the config says.
    """
    batches = config["max_batch_size"] > 0
    _check_tensors("input", config["input"], signature.inputs, batches)
    _check_tensors("output", config["output"], signature.outputs, batches)
    stated = {tensor["name"] for tensor in config["input"]}
    for tensor in signature.inputs:
        if tensor.name not in stated:
            raise SignatureMismatch(f"input '{tensor.name}' of the model file is not in config.pbtxt")


def _check_tensors(kind: str, stated: Sequence[Mapping[str, Any]], found: Sequence[FileTensor], batches: bool) -> None:
    by_name = {tensor.name: tensor for tensor in found}
    for entry in stated:
        name = entry["name"]
        tensor = by_name.get(name)
        if tensor is None:
            names = ", ".join(f"'{known}'" for known in by_name)
            raise SignatureMismatch(f"config.pbtxt states {kind} '{name}', the model file has {names}")
        if tensor.data_type not in (None, entry["data_type"]):
            raise SignatureMismatch(
                f"{kind} '{name}': config.pbtxt states {entry['data_type']}, the model file has {tensor.data_type}"
            )
        shape = ([-1] if batches else []) + [int(size) for size in entry["dims"]]
        if tensor.dims is not None and not _agree(shape, tensor.dims):
            batch = " with the batch dimension" if batches else ""
            raise SignatureMismatch(
                f"{kind} '{name}': config.pbtxt states the shape {shape}{batch}, the model file has {list(tensor.dims)}"
            )


def _agree(stated: Sequence[int], found: Sequence[int]) -> bool:
    return len(stated) == len(found) and all(size in (-1, stated[axis]) for axis, size in enumerate(found))
