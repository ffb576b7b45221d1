from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from contract.card import Batching, Card, Preprocessing
from contract.formats import Candidate, Format, Target
from contract.manifest import Manifest, Source, Trial, Verification
from contract.model_config import from_pbtxt
from contract.model_files import GPU, VARIANTS, encoded_configs, labels_text, tensor_configs

CARD = Card(
    name="shades",
    labels=("dark", "light"),
    preprocessing=Preprocessing(height=24, width=32),
    batching=Batching(max_batch_size=16),
)
FIGURES = Verification(batch_sizes=(1,), images=2, max_abs_error=0, mean_abs_error=0, top1_agreement=1)


def manifest(target: Target, default: Format, *formats: Format) -> Manifest:
    return Manifest(
        model=CARD.name,
        version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        card=CARD,
        source=Source(uri="mine", sha256="0" * 64),
        toolchain={},
        formats=dict.fromkeys(formats, FIGURES),
        default_format=default,
        target=target,
        artifacts={},
    )


def test_gpu_config_has_triton_build_engines_for_every_batch_size() -> None:
    config = from_pbtxt(tensor_configs(manifest(Target.CPU, Format.ONNX, Format.ONNX))[GPU])
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = dict(accelerator.parameters)
    assert accelerator.name == "tensorrt"
    assert (parameters["precision_mode"], parameters["trt_engine_cache_enable"]) == ("FP16", "true")
    assert parameters["trt_profile_min_shapes"] == "images:1x24x32x3"
    assert parameters["trt_profile_max_shapes"] == "images:16x24x32x3"


@pytest.mark.parametrize("build", [tensor_configs, encoded_configs])
def test_default_is_that_of_the_target(build: Callable[[Manifest], dict[str | None, str]]) -> None:
    on_cpu = build(manifest(Target.CPU, Format.ONNX, Format.ONNX, Format.OPENVINO))
    assert on_cpu[None] == on_cpu["onnxruntime"]
    on_gpu = build(manifest(Target.GPU, Format.ONNX, Format.ONNX, Format.OPENVINO))
    assert on_gpu[None] == on_gpu[GPU]
    asked = build(manifest(Target.GPU, Format.OPENVINO, Format.ONNX, Format.OPENVINO))
    assert asked[None] == asked["openvino"]


def test_variants_are_those_of_the_formats_the_version_has() -> None:
    texts = tensor_configs(manifest(Target.CPU, Format.OPENVINO, Format.OPENVINO))
    assert texts.keys() == {None, "openvino"}
    assert {*VARIANTS} == {"pytorch", "onnxruntime", "openvino", "tensorrt", GPU}
    every = tensor_configs(manifest(Target.CPU, Format.OPENVINO, *Format))
    assert every.keys() == {None, *VARIANTS}


def test_scores_are_named_as_each_file_names_them() -> None:
    texts = tensor_configs(manifest(Target.CPU, Format.OPENVINO, *Format))
    names = {variant: from_pbtxt(text).output[0].name for variant, text in texts.items()}
    assert names["pytorch"] == "OUTPUT__0" and names["tensorrt"] == "output0"
    assert {names["onnxruntime"], names["openvino"], names[GPU], names[None]} == {"scores"}


def test_labels_are_one_a_line() -> None:
    assert labels_text(CARD) == "dark\nlight\n"


def test_served_candidate_is_the_one_of_the_default_format_that_was_kept() -> None:
    trials = {Candidate.OPENVINO: Trial(dropped="slower"), Candidate.OPENVINO_INT8: Trial(), Candidate.ONNX: Trial()}
    draft = manifest(Target.CPU, Format.OPENVINO, Format.ONNX, Format.OPENVINO)
    assert draft.served is None
    assert draft.model_copy(update={"candidates": trials}).served is Candidate.OPENVINO_INT8
