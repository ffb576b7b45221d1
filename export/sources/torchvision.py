"""`torchvision:NAME`: a classifier of torchvision with random weights, or those of a local file. Nothing is downloaded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

import torch
import torchvision
from torch import nn

from contract.card import Card, Preprocessing
from contract.manifest import Artifact, Source
from export.errors import CheckpointInvalid, OptionsInvalid, one_line
from export.load import plain_data
from export.options import ExportOptions
from export.sources.card import card_of
from export.sources.source import SourceModel

SCHEME = "torchvision:"


@dataclass(frozen=True, slots=True)
class _Address:
    name: str
    seed: int = 0
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        name, _, query = text.removeprefix(SCHEME).partition("?")
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise OptionsInvalid(f"{text}: torchvision has no classifier {name!r}")
        try:
            pairs = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        except ValueError as error:
            raise OptionsInvalid(f"{text}: {error}; write torchvision:{name}?seed=0") from error
        if unknown := pairs.keys() - {"seed", "weights"}:
            raise OptionsInvalid(f"{text}: unknown: {', '.join(sorted(unknown))}; seed and weights are known")
        if len(pairs) == 2:
            raise OptionsInvalid(f"{text}: give a seed for random weights or a file of weights, not both")
        seed = pairs.get("seed", "0")
        if not (seed.isascii() and seed.isdigit()):
            raise OptionsInvalid(f"{text}: the seed is not a whole number")
        return cls(name, int(seed), Path(pairs["weights"]) if "weights" in pairs else None)


def load_torchvision(options: ExportOptions) -> SourceModel:
    """Build the network; its card is that of torchvision's own weights of that name, without the weights.

    Raises:
        OptionsInvalid: There is no such classifier, or the address is not one.
        CheckpointInvalid: The file of weights is none, or of another network.
    """
    address = _Address.parse(options.source)
    card = card_of(options, _own_card(address.name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address.seed)
        network: nn.Module = torchvision.models.get_model(address.name, weights=None, num_classes=len(card.labels))
    if address.weights is None:
        source = Source(uri=f"{SCHEME}{address.name}?seed={address.seed}", sha256=_digest(network))
    else:
        _load_weights(network, address.weights)
        uri = f"{SCHEME}{address.name}?weights={address.weights.name}"
        source = Source(uri=uri, sha256=Artifact.of(address.weights).sha256)
    return SourceModel(network.eval(), card, source, trained=address.weights is not None)


def _own_card(name: str) -> Card:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    return Card(
        name=name,
        labels=tuple(weights.meta["categories"]),
        preprocessing=Preprocessing(
            height=transform.crop_size[0],
            width=transform.crop_size[0],
            shorter_side=max(transform.resize_size[0], transform.crop_size[0]),
            interpolation=transform.interpolation.value,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        ),
    )


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(plain_data(path))
    except (RuntimeError, TypeError) as error:
        raise CheckpointInvalid(f"{path}: {one_line(error)}") from error


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
