import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.manifest import Artifact
from export.errors import CheckpointInvalid
from export.held_out import HeldOutImages
from export.load import Checkpoint, held_out_images, load_checkpoint, training_images
from tests.export.conftest import CHECKPOINT

Change = Callable[[Callable[[dict[str, Any]], None]], Path]


class Poison:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_checkpoint_brings_its_card_and_digest(loaded: Checkpoint) -> None:
    assert loaded.card.name == "digits"
    assert loaded.sha256 == Artifact.of(CHECKPOINT).sha256
    assert not loaded.network.training


def test_poisoned_checkpoint_is_refused_and_never_executed(changed_checkpoint: Change, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = changed_checkpoint(lambda content: content.update(callbacks=Poison(marker)))
    with pytest.raises(CheckpointInvalid, match="refused, as loading it could execute code"):
        load_checkpoint(path)
    assert not marker.exists()

    torch.load(path, weights_only=False)
    assert marker.exists(), "the poison of this test does not work"


def test_bare_pickle_is_refused_and_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "bare.ckpt"
    path.write_bytes(pickle.dumps(Poison(marker)))
    with pytest.raises(CheckpointInvalid, match="not a PyTorch checkpoint"):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["card", "hyper_parameters", "state_dict"])
def test_missing_part_is_named(changed_checkpoint: Change, key: str) -> None:
    def drop(content: dict[str, Any]) -> None:
        del content[key]

    with pytest.raises(CheckpointInvalid, match=f"no {key}"):
        load_checkpoint(changed_checkpoint(drop))


def test_missing_layer_is_named(changed_checkpoint: Change) -> None:
    def drop(content: dict[str, Any]) -> None:
        del content["state_dict"]["network.head.bias"]

    with pytest.raises(CheckpointInvalid, match=r"Missing key.*network\.head\.bias"):
        load_checkpoint(changed_checkpoint(drop))


def test_unexpected_layer_is_named(changed_checkpoint: Change) -> None:
    path = changed_checkpoint(lambda content: content["state_dict"].update({"network.tail.bias": torch.zeros(1)}))
    with pytest.raises(CheckpointInvalid, match=r"Unexpected key.*network\.tail\.bias"):
        load_checkpoint(path)


def test_card_with_other_labels_than_the_weights_is_refused(changed_checkpoint: Change) -> None:
    path = changed_checkpoint(lambda content: content["card"].update(labels=["yes", "no"]))
    with pytest.raises(CheckpointInvalid, match=r"size mismatch for network\.head"):
        load_checkpoint(path)


def test_card_that_is_none_is_refused_in_one_line(changed_checkpoint: Change) -> None:
    path = changed_checkpoint(lambda content: content["card"].update(name="../digits"))
    with pytest.raises(CheckpointInvalid, match="name") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_hyperparameters_of_another_class_are_refused(changed_checkpoint: Change) -> None:
    path = changed_checkpoint(lambda content: content.update(hyper_parameters={"depth": 50}))
    with pytest.raises(CheckpointInvalid, match="depth"):
        load_checkpoint(path)


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_flipped_byte_is_found_before_loading(tmp_path: Path, position: float) -> None:
    data = bytearray(CHECKPOINT.read_bytes())
    data[int(len(data) * position)] ^= 0xFF
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointInvalid, match="damaged|not a PyTorch checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"PK\x03\x04"])
def test_other_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointInvalid, match="not a PyTorch checkpoint"):
        load_checkpoint(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_no_images_are_known_of_another_data_set() -> None:
    assert held_out_images("flowers") is None
    assert training_images("flowers", 10) is None


def test_images_to_calibrate_on_are_none_of_those_held_out(held_out: HeldOutImages) -> None:
    training = training_images("digits", 2_000)
    assert training is not None and len(training) + len(held_out.images) == 1_797
    assert held_out.labels is not None
    seen = {image.tobytes() for image in training}
    assert not any(image.tobytes() in seen for image in held_out.images)
