"""What a model's config says to its engine."""

import os
from dataclasses import replace
from typing import Any

import pytest

from serving.backends.options import EngineOptions, OptionInvalid, decodes_on_gpu, device_of, engine_options


def options(instances: int = 1, **parameters: str) -> EngineOptions:
    config: dict[str, Any] = {
        "input": [{"name": "x"}],
        "output": [{"name": "y"}],
        "instance_group": [{"count": instances}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    return engine_options(config)


def test_instances_share_the_cores_and_one_that_is_alone_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert (options(2).threads, options(2).threads_alone) == (4, 8)
    assert (options(3).threads, options(3).threads_alone) == (3, 8)
    assert (options(16).threads, options(16).threads_alone) == (1, 8)


def test_threads_that_are_stated_are_meant_in_every_case() -> None:
    assert (options(2, threads="3").threads, options(2, threads="3").threads_alone) == (3, 3)


@pytest.mark.parametrize("stated", ["0", "-1", "two", ""])
def test_threads_are_a_positive_number(stated: str) -> None:
    with pytest.raises(OptionInvalid, match="parameter 'threads' is"):
        options(threads=stated)


def test_an_instance_runs_where_triton_placed_it() -> None:
    assert device_of({"model_instance_kind": "GPU", "model_instance_device_id": "1"}) == "cuda:1"
    assert device_of({"model_instance_kind": "CPU", "model_instance_device_id": "0"}) == "cpu"


def test_photographs_are_decoded_by_pillow_unless_nvjpeg_is_stated() -> None:
    assert not decodes_on_gpu(options())
    assert not decodes_on_gpu(replace(options(decoder="pillow", engine="torchscript"), device="cuda:0"))
    assert decodes_on_gpu(replace(options(decoder="nvjpeg", engine="torchscript"), device="cuda:0"))
    with pytest.raises(OptionInvalid, match="'decoder' is 'libjpeg', not one of pillow, nvjpeg"):
        decodes_on_gpu(options(decoder="libjpeg"))


@pytest.mark.parametrize(("device", "engine"), [("cpu", "torchscript"), ("cuda:0", "onnx")])
def test_nvjpeg_is_refused_where_torch_does_not_run_the_model_on_a_gpu(device: str, engine: str) -> None:
    with pytest.raises(
        OptionInvalid, match="'decoder' is 'nvjpeg', which needs an instance on a GPU and 'engine' 'tor"
    ):
        decodes_on_gpu(replace(options(decoder="nvjpeg", engine=engine), device=device))
