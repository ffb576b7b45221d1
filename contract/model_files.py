"""The texts beside a model's versions: labels.txt and every config.pbtxt."""

from collections.abc import Mapping

from contract.card import Card
from contract.formats import Format, Target
from contract.manifest import Manifest
from contract.model_config import encoded_model_config, from_pbtxt, gpu_model_config, model_config, to_pbtxt, tune

GPU = "gpu"
# All that Triton's --model-config-name could ask for; those a version lacks must not be left from one before it.
VARIANTS = (*(format_.backend for format_ in Format), GPU)


def tensor_configs(manifest: Manifest) -> dict[str | None, str]:
    """The texts of the config of the model that takes tensors, by variant; None is `config.pbtxt` itself."""
    card = manifest.card
    texts: dict[str | None, str] = {
        format_.backend: to_pbtxt(model_config(card, format_)) for format_ in manifest.formats
    }
    if Format.ONNX in manifest.formats:
        texts[GPU] = to_pbtxt(gpu_model_config(card))
    return _with_default(manifest, card.name, texts)


def encoded_configs(manifest: Manifest) -> dict[str | None, str]:
    """The texts of the config of the model that takes photographs, by variant; None is `config.pbtxt` itself."""
    card = manifest.card
    texts: dict[str | None, str] = {
        format_.backend: to_pbtxt(encoded_model_config(card, format_)) for format_ in manifest.formats
    }
    if Format.ONNX in manifest.formats:
        texts[GPU] = to_pbtxt(encoded_model_config(card, Format.ONNX, gpu=True))
    return _with_default(manifest, card.encoded_name, texts)


def labels_text(card: Card) -> str:
    """One label a line, in the order of the scores."""
    return "".join(f"{label}\n" for label in card.labels)


def _with_default(manifest: Manifest, model: str, texts: Mapping[str | None, str]) -> dict[str | None, str]:
    portable = manifest.target is Target.GPU and manifest.default_format is Format.ONNX
    default = GPU if portable else manifest.default_format.backend
    text = texts[default]
    if (tuned := manifest.tuned.get(model)) is not None:
        config = from_pbtxt(text)
        tune(config, tuned.tuning)
        # By a change of the instances alone Triton keeps those it has, with their threads.
        config.parameters["tuned_at"].string_value = tuned.tuned_at.isoformat(timespec="seconds")
        text = to_pbtxt(config)
    # Another variant has another engine or another machine: what was measured says nothing of it.
    return {None: text, **texts, default: text}
