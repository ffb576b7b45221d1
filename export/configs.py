"""Has config.pbtxt, and every variant of it, name the versions that Triton serves."""

from collections.abc import Mapping, Sequence

from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.manifest import Manifest
from contract.model_config import from_pbtxt, to_pbtxt
from contract.model_files import VARIANTS, encoded_configs, labels_text, tensor_configs
from contract.repository import CONFIG, LABELS


def shared_files(model: str, live: Manifest, served: Sequence[Manifest]) -> Mapping[str, bytes | None]:
    """The files that all versions of a model share.

    Args:
        model: NAME or NAME_encoded.
        live: Of the version whose card and formats the files follow.
        served: Of the versions to serve, ascending. A config names those that have the file it opens.

    Returns:
        By path in the repository, in the order to write them; None: a variant that the live version has not. Without it
            Triton takes config.pbtxt.
    """
    tensors = tensor_configs(live)
    texts = tensors if model == live.card.name else encoded_configs(live)
    configs = {
        variant: _serving(from_pbtxt(text), [m.version for m in served if _has_file(m, from_pbtxt(tensors[variant]))])
        for variant, text in texts.items()
    }
    return {
        f"{model}/{LABELS}": labels_text(live.card).encode(),
        **{f"{model}/configs/{variant}.pbtxt": configs.get(variant) for variant in VARIANTS},
        f"{model}/{CONFIG}": configs[None],
    }


def versions_served(config: ModelConfig, existing: Sequence[int]) -> tuple[int, ...]:
    """The versions that Triton loads by a config's policy, ascending.

    Args:
        existing: Ascending.
    """
    policy = config.version_policy
    if policy.HasField("specific"):
        return tuple(version for version in existing if version in policy.specific.versions)
    if policy.HasField("all"):
        return tuple(existing)
    # An absent policy, and a `latest` that gives no number, stand for the latest one.
    return tuple(existing[-max(1, policy.latest.num_versions) :])


def _serving(config: ModelConfig, versions: Sequence[int]) -> bytes:
    config.version_policy.Clear()
    config.version_policy.specific.versions.extend(versions)
    return to_pbtxt(config).encode()


def _has_file(manifest: Manifest, tensors: ModelConfig) -> bool:
    return f"{manifest.model}/{manifest.version}/{tensors.default_model_filename}" in manifest.artifacts
