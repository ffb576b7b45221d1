"""config.pbtxt: built from a card as Triton's own protobuf message, and read back from it."""

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)

from contract.card import Card
from contract.errors import ConfigInvalid
from contract.formats import Format
from contract.repository import LABELS, PREPROCESSING
from contract.tensors import SCORES, DataType, TensorSpec
from contract.tuning import Tuning

IMAGE_BACKEND = "tidegate_image"
# Torch would cost each process of photographs its start and its memory.
_LOADED_WITH_IMAGES = (Format.OPENVINO, Format.ONNX)
TORCHSCRIPT_OUTPUT = "OUTPUT__0"
TENSORRT_OUTPUT = "output0"
# While one computes, the next batch is there for the other; more of them empty one another's caches.
_INSTANCES = 2
# Of photographs that another model scores, as on a GPU: while it does, one that has decoded has nothing to do.
_INSTANCES_WAITING = 3
# A CPU gains little by larger batches, and while one instance takes all that waits the other has nothing to do.
_CPU_BATCH = 8
# Of photographs in batches of 8, decoding included, a CPU answers 2 % fewer, and the slowest wait for a third longer.
_CPU_BATCH_ENCODED = 4
# Engines are built for one GPU and TensorRT: a place on the machine that serves, never in the repository.
_ENGINE_CACHE = "/tmp/tidegate-tensorrt"
_ENGINE_WORKSPACE_BYTES = 1 << 30


def model_config(card: Card, served: Format) -> ModelConfig:
    """The config of the model that takes tensors.

    Args:
        card: What training promised.
        served: The format whose backend runs it. TorchScript files and TensorRT plans name their outputs themselves, so
            that the scores are called OUTPUT__0 and output0 there.
    """
    config = _batching_config(card, card.name, batch=None if served is Format.TENSORRT else _CPU_BATCH)
    config.backend = served.backend
    config.default_model_filename = served.filenames[0]
    config.input.append(_input(card.images))
    scores = TensorSpec(scores_output(served), card.scores.data_type, card.scores.dims)
    config.output.append(_output(scores, labelled=True))
    kind = ModelInstanceGroup.KIND_GPU if served is Format.TENSORRT else ModelInstanceGroup.KIND_CPU
    config.instance_group.append(ModelInstanceGroup(count=_INSTANCES, kind=kind))
    warmup = config.model_warmup.add(name="full batch", batch_size=card.batching.max_batch_size)
    warmup.inputs[card.images.name].data_type = card.images.data_type.config_value
    warmup.inputs[card.images.name].dims.extend(card.images.dims)
    warmup.inputs[card.images.name].random_data = True
    return config


def gpu_model_config(card: Card) -> ModelConfig:
    """The config of the model that takes tensors, for any NVIDIA GPU: ONNX, compiled by TensorRT where it is served.

    The engine computes in FP16 and is built for batches of one to the card's largest, when the warm-up first asks for it;
    the cache spares the next start the minutes this takes.
    """
    config = model_config(card, Format.ONNX)
    config.instance_group[0].kind = ModelInstanceGroup.KIND_GPU
    config.dynamic_batching.ClearField("preferred_batch_size")
    height, width, channels = card.images.dims
    largest = card.batching.max_batch_size
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    accelerator.parameters.update(
        {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": str(_ENGINE_WORKSPACE_BYTES),
            "trt_engine_cache_enable": "true",
            "trt_engine_cache_path": _ENGINE_CACHE,
            "trt_engine_cache_prefix": card.name,
            "trt_profile_min_shapes": f"{card.images.name}:1x{height}x{width}x{channels}",
            "trt_profile_opt_shapes": f"{card.images.name}:{largest}x{height}x{width}x{channels}",
            "trt_profile_max_shapes": f"{card.images.name}:{largest}x{height}x{width}x{channels}",
        }
    )
    return config


def encoded_model_config(card: Card, served: Format, *, gpu: bool = False) -> ModelConfig:
    """The config of the model that takes photographs.

    It runs the model of tensors in its own process where the format allows, and asks that model elsewhere.

    Args:
        gpu: The model of tensors is on a GPU, whose memory it should take once.
    """
    config = _batching_config(card, card.encoded_name, batch=None if gpu else _CPU_BATCH_ENCODED)
    config.backend = IMAGE_BACKEND
    config.default_model_filename = PREPROCESSING
    config.input.append(_input(card.encoded))
    config.output.append(_output(card.scores, labelled=True))
    config.output.append(_output(card.error, labelled=False))
    scores_here = served in _LOADED_WITH_IMAGES and not gpu
    instances = _INSTANCES if scores_here else _INSTANCES_WAITING
    config.instance_group.append(ModelInstanceGroup(count=instances, kind=ModelInstanceGroup.KIND_CPU))
    parameters = {
        "model": card.name,
        "model_input": card.images.name,
        "model_output": scores_output(served),
        **{name: str(value) for name, value in card.image_limits},
    }
    if scores_here:
        parameters["engine"] = served.value
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def tuning_of(config: ModelConfig) -> Tuning:
    """How a config of ours runs its model."""
    threads = config.parameters["threads"].string_value if "threads" in config.parameters else ""
    return Tuning(
        queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        instances=config.instance_group[0].count,
        threads=int(threads) if threads else None,
        batch_size=max(config.dynamic_batching.preferred_batch_size, default=None),
    )


def tune(config: ModelConfig, tuning: Tuning) -> None:
    """Have a config of ours run its model so."""
    config.instance_group[0].count = tuning.instances
    config.dynamic_batching.max_queue_delay_microseconds = tuning.queue_delay_us
    del config.dynamic_batching.preferred_batch_size[:]
    if tuning.batch_size is not None:
        config.dynamic_batching.preferred_batch_size.append(tuning.batch_size)
    config.parameters.pop("threads", None)
    if tuning.threads is not None:
        config.parameters["threads"].string_value = str(tuning.threads)


def scores_output(served: Format) -> str:
    """The name of the scores where `served` is the format that runs."""
    return {Format.TORCHSCRIPT: TORCHSCRIPT_OUTPUT, Format.TENSORRT: TENSORRT_OUTPUT}.get(served, SCORES)


def _batching_config(card: Card, name: str, *, batch: int | None) -> ModelConfig:
    config = ModelConfig(name=name, max_batch_size=card.batching.max_batch_size)
    # The version before the newest stays loaded, so that the two models of a card need not be swapped in one instant.
    config.version_policy.latest.num_versions = 2
    config.dynamic_batching.max_queue_delay_microseconds = card.batching.max_queue_delay_us
    if batch is not None:
        config.dynamic_batching.preferred_batch_size.append(min(batch, card.batching.max_batch_size))
    config.response_cache.enable = card.cache_responses
    return config


def _input(spec: TensorSpec) -> ModelInput:
    return ModelInput(name=spec.name, data_type=spec.data_type.config_value, dims=spec.dims)


def _output(spec: TensorSpec, *, labelled: bool) -> ModelOutput:
    label_filename = LABELS if labelled else ""
    return ModelOutput(
        name=spec.name, data_type=spec.data_type.config_value, dims=spec.dims, label_filename=label_filename
    )


def to_pbtxt(config: ModelConfig) -> str:
    """The text Triton reads."""
    return str(text_format.MessageToString(config))


def from_pbtxt(text: str, *, path: str = "config.pbtxt") -> ModelConfig:
    """Parse a config.pbtxt.

    Raises:
        ConfigInvalid: The text is not Triton's ModelConfig; the message names the file, line and column.
    """
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ConfigInvalid(f"{path}:{error}") from error


def inputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    """The inputs, without the batch dimension."""
    return tuple(TensorSpec(i.name, DataType.from_config(i.data_type), tuple(i.dims)) for i in config.input)


def outputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    """The outputs, without the batch dimension."""
    return tuple(TensorSpec(o.name, DataType.from_config(o.data_type), tuple(o.dims)) for o in config.output)
