"""config.pbtxt against the model file."""

from typing import Any

import pytest

from serving.backends.options import OptionInvalid, engine_options
from serving.backends.signature import FileTensor, Signature, SignatureMismatch, check, complete


class Config:
    """The python backend's config, as its documentation describes it."""

    def __init__(self, **stated: Any) -> None:
        self.stated = {"input": [], "output": [], "max_batch_size": 0, **stated}

    def as_dict(self) -> dict[str, Any]:
        return self.stated

    def add_input(self, tensor: Any) -> None:
        self.stated["input"].append(tensor)

    def add_output(self, tensor: Any) -> None:
        self.stated["output"].append(tensor)

    def set_max_batch_size(self, max_batch_size: int) -> None:
        self.stated["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        self.stated.setdefault("dynamic_batching", {})


def signature(*dims: int | None, data_type: str = "TYPE_FP32") -> Signature:
    shape = tuple(-1 if size is None else size for size in dims)
    return Signature((FileTensor("x", data_type, shape),), (FileTensor("y", data_type, shape),))


def stated(*dims: int, name: str = "x", data_type: str = "TYPE_FP32") -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims)}


def test_a_dynamic_first_dimension_is_completed_as_a_batch() -> None:
    config = Config()
    complete(config, signature(None, None, 3))
    assert config.stated == {
        "input": [stated(-1, 3)],
        "output": [stated(-1, 3, name="y")],
        "max_batch_size": 32,
        "dynamic_batching": {},
    }


@pytest.mark.parametrize("dims", [(1, 3), (None,), (4,)])
def test_other_shapes_are_completed_without_a_batch(dims: tuple[int | None, ...]) -> None:
    config = Config()
    complete(config, signature(*dims))
    assert config.stated["max_batch_size"] == 0
    assert "dynamic_batching" not in config.stated
    assert config.stated["input"] == [stated(*(-1 if size is None else size for size in dims))]


def test_what_is_stated_is_kept() -> None:
    config = Config(input=[stated(3)], max_batch_size=4)
    complete(config, signature(None, 3))
    assert config.stated["max_batch_size"] == 4
    assert config.stated["input"] == [stated(3)]
    assert config.stated["output"] == [stated(3, name="y")]


def test_a_scalar_cannot_be_completed() -> None:
    with pytest.raises(SignatureMismatch, match="tensor 'x' of the model file has no shape"):
        complete(Config(), signature())


@pytest.mark.parametrize(
    ("entries", "max_batch_size", "dims"),
    [([stated(3)], 8, (None, 3)), ([stated(3)], 8, (None, None)), ([stated(-1, 3)], 0, (None, 3)), ([stated(2, 3)], 0, (2, 3))],
)  # fmt: skip
def test_a_config_that_agrees_passes(entries: list[Any], max_batch_size: int, dims: tuple[int | None, ...]) -> None:
    check(Config(input=entries, max_batch_size=max_batch_size).stated, signature(*dims))


@pytest.mark.parametrize(
    ("entries", "dims", "message"),
    [
        ([stated(3, name="z")], (None, 3), "config.pbtxt states input 'z', the model file has 'x'"),
        (
            [stated(3, data_type="TYPE_INT8")],
            (None, 3),
            "input 'x': config.pbtxt states TYPE_INT8, the model file has TYPE_FP32",
        ),
        (
            [stated(3)],
            (1, 3),
            "input 'x': config.pbtxt states the shape [-1, 3] with the batch dimension, the model file has [1, 3]",
        ),
        (
            [stated(-1)],
            (None, 3),
            "input 'x': config.pbtxt states the shape [-1, -1] with the batch dimension, the model file has [-1, 3]",
        ),
        ([], (None, 3), "input 'x' of the model file is not in config.pbtxt"),
    ],
)
def test_a_config_that_disagrees_is_refused(entries: list[Any], dims: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(SignatureMismatch) as raised:
        check(Config(input=entries, max_batch_size=8).stated, signature(*dims))
    assert str(raised.value) == message


def options_of(count: int, **parameters: str) -> Any:
    values = {name: {"string_value": value} for name, value in parameters.items()}
    return engine_options(Config(instance_group=[{"count": count}], parameters=values).stated)


def test_threads_are_stated_or_the_cores_shared_among_the_instances() -> None:
    assert options_of(2, threads="3").threads == 3
    assert options_of(1).threads >= options_of(2).threads >= options_of(100_000).threads == 1


@pytest.mark.parametrize("threads", ["0", "-1", "many"])
def test_threads_that_are_no_number_are_refused(threads: str) -> None:
    with pytest.raises(OptionInvalid, match=f"parameter 'threads' is '{threads}', not a positive number"):
        options_of(1, threads=threads)


def test_a_choice_is_the_first_unless_stated_and_must_be_known() -> None:
    assert options_of(1).choice("hint", ("LATENCY", "THROUGHPUT")) == "LATENCY"
    assert options_of(1, hint="THROUGHPUT").choice("hint", ("LATENCY", "THROUGHPUT")) == "THROUGHPUT"
    with pytest.raises(OptionInvalid, match="not one of LATENCY, THROUGHPUT"):
        options_of(1, hint="SPEED").choice("hint", ("LATENCY", "THROUGHPUT"))
