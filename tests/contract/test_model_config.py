import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract import model_config as configs
from contract.card import Batching, Card, Preprocessing
from contract.errors import ConfigInvalid
from contract.formats import Format
from contract.tensors import DataType, TensorSpec

_CARD = Card(
    name="digits",
    labels=("a", "b"),
    preprocessing=Preprocessing(height=4, width=6),
    batching=Batching(max_batch_size=8, max_queue_delay_us=500),
    cache_responses=True,
)


@pytest.mark.parametrize("format_", Format)
def test_a_config_goes_through_text_unchanged(format_: Format) -> None:
    for config in (configs.model_config(_CARD, format_), configs.encoded_model_config(_CARD, format_)):
        assert configs.from_pbtxt(configs.to_pbtxt(config)) == config


@pytest.mark.parametrize("format_", Format)
def test_both_models_promise_what_the_card_does(format_: Format) -> None:
    tensors = configs.model_config(_CARD, format_)
    encoded = configs.encoded_model_config(_CARD, format_)
    assert tensors.backend == format_.backend
    assert configs.inputs(tensors) == (_CARD.images,)
    assert configs.inputs(encoded) == (_CARD.encoded,)
    assert configs.outputs(encoded) == (_CARD.scores, _CARD.error)
    (scores,) = configs.outputs(tensors)
    assert scores.dims == (2,)
    assert encoded.parameters["model_output"].string_value == scores.name
    for config in (tensors, encoded):
        assert config.max_batch_size == 8
        assert config.output[0].label_filename == "labels.txt"
        assert config.response_cache.enable


@pytest.mark.parametrize("format_", Format)
def test_nothing_bounds_the_queue_as_triton_would_then_stall(format_: Format) -> None:
    for config in (configs.model_config(_CARD, format_), configs.encoded_model_config(_CARD, format_)):
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
        assert not config.dynamic_batching.HasField("default_queue_policy")
        assert not config.dynamic_batching.priority_levels


def test_a_config_that_is_none_is_named_with_its_place() -> None:
    with pytest.raises(ConfigInvalid, match=r"models/x/config\.pbtxt:2:1"):
        configs.from_pbtxt('name: "x"\nnonsense: 1\n', path="models/x/config.pbtxt")


def test_triton_says_string_where_the_wire_says_bytes() -> None:
    config = ModelConfig()
    config.input.add(name="x", data_type=DataType.BYTES.config_value, dims=[-1])
    assert configs.inputs(config) == (TensorSpec("x", DataType.BYTES, (-1,)),)


@pytest.mark.parametrize("data_type", DataType)
def test_every_data_type_goes_both_ways(data_type: DataType) -> None:
    assert DataType.from_config(data_type.config_value) is data_type
    assert (data_type.numpy is None) is (data_type is DataType.BF16)


@pytest.mark.parametrize(
    ("served", "gpu", "instances"), [(Format.ONNX, False, 2), (Format.ONNX, True, 3), (Format.TORCHSCRIPT, False, 3)]
)
def test_photographs_that_another_model_scores_have_an_instance_more(served: Format, gpu: bool, instances: int) -> None:
    (group,) = configs.encoded_model_config(_CARD, served, gpu=gpu).instance_group
    assert (group.count, group.kind) == (instances, group.KIND_CPU)
    assert [group.count for group in configs.model_config(_CARD, served).instance_group] == [2]


def test_a_cpu_is_given_batches_that_leave_work_for_its_other_instance() -> None:
    card = _CARD.model_copy(update={"batching": Batching(max_batch_size=32)})
    tensors, photographs = configs.model_config(card, Format.OPENVINO), configs.encoded_model_config(
        card, Format.OPENVINO
    )
    for config, batch in ((tensors, 8), (photographs, 4)):
        assert list(config.dynamic_batching.preferred_batch_size) == [batch]
        assert config.dynamic_batching.max_queue_delay_microseconds == 0
    for config in (configs.gpu_model_config(card), configs.encoded_model_config(card, Format.ONNX, gpu=True)):
        assert not config.dynamic_batching.preferred_batch_size


def test_photographs_are_scored_where_they_are_decoded_but_for_a_gpu_and_torch() -> None:
    engines = {format_: configs.encoded_model_config(_CARD, format_).parameters for format_ in Format}
    named = {format_: config["engine"].string_value for format_, config in engines.items() if "engine" in config}
    assert named == {Format.OPENVINO: "openvino", Format.ONNX: "onnx"}
    assert "engine" not in configs.encoded_model_config(_CARD, Format.ONNX, gpu=True).parameters
