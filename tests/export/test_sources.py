import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from contract.manifest import Artifact
from export.errors import CheckpointInvalid, OptionsInvalid, SourceFailed
from export.options import ExportOptions
from export.pipeline import nothing_remote
from export.sources.resolve import load_source
from export.sources.source import SourceFile, SourceModel
from tests.export.conftest import CHECKPOINT

SHUFFLENET = "torchvision:shufflenet_v2_x0_5"
MODULE = """
from lightning.pytorch import LightningModule
from torch import nn


class Net(LightningModule):
    def __init__(self, width, classes):
        super().__init__()
        self.save_hyperparameters()
        self.features = nn.Conv2d(3, width, 8, stride=8)
        self.head = nn.Linear(width * 4, classes)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))
"""


def load(source: str, **fields: Any) -> SourceModel:
    return load_source(ExportOptions.of({"source": source, **fields}), Path("unused"), nothing_remote)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Options for a module in the working directory that takes 3x16x16 and tells three classes apart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    layers = {"features": nn.Conv2d(3, 5, 8), "head": nn.Linear(20, 3)}
    weights = {f"{name}.{key}": tensor for name, layer in layers.items() for key, tensor in layer.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": {"width": 5, "classes": 3}}, tmp_path / "mine.ckpt")
    yield {"module": "mine:Net", "name": "colours", "input": "3x16x16", "labels": "labels.txt"}
    sys.modules.pop("mine", None)


def test_checkpoint_of_tidegate_brings_its_card() -> None:
    model = load(str(CHECKPOINT))
    assert (model.card.name, model.data_set, model.trained) == ("digits", "digits", True)
    assert model.source.sha256 == Artifact.of(CHECKPOINT).sha256


def test_options_go_before_the_card() -> None:
    model = load(str(CHECKPOINT), name="numbers", max_batch_size=8, mean="0.1,0.2,0.3")
    assert (model.card.name, model.card.batching.max_batch_size) == ("numbers", 8)
    assert model.card.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.data_set == "digits", "its test images are still the ones to verify on"


def test_torchvision_model_has_torchvisions_card_and_the_same_weights_for_a_seed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (load(f"{SHUFFLENET}?seed={seed}", input="3x64x64") for seed in (1, 1, 2))
    assert torch.rand(1) == expected, "the random numbers of others are left alone"
    assert first.source == again.source and first.source.sha256 != other.source.sha256
    assert first.source.uri == f"{SHUFFLENET}?seed=1"
    assert not first.trained and not first.network.training
    assert first.card.labels[0] == "tench" and len(first.card.labels) == 1_000
    preprocessing = first.card.preprocessing
    # 256 of 224 pixels, as torchvision scales for this model.
    assert (preprocessing.height, preprocessing.shorter_side, preprocessing.mean[0]) == (64, 73, 0.485)


def test_torchvision_model_takes_weights_from_a_file(tmp_path: Path) -> None:
    path, labels = tmp_path / "mine.pt", tmp_path / "labels.txt"
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    torch.save(network.state_dict(), path)
    labels.write_text("cat\ndog\n")
    model = load(f"{SHUFFLENET}?weights={path}", input="3x64x64", labels=labels)
    assert model.trained and model.card.labels == ("cat", "dog")
    assert (model.source.uri, model.source.sha256) == (f"{SHUFFLENET}?weights=mine.pt", Artifact.of(path).sha256)
    assert all(torch.equal(model.network.state_dict()[name], value) for name, value in network.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointInvalid, match=r"mine\.pt: .*Missing key"):
        load(f"{SHUFFLENET}?weights={path}")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("torchvision:resnet51", "no classifier 'resnet51'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classifier"),
        (f"{SHUFFLENET}?sed=1", "unknown: sed"),
        (f"{SHUFFLENET}?seed=-1", "not a whole number"),
        (f"{SHUFFLENET}?seed", "bad query field"),
        (f"{SHUFFLENET}?seed=1&weights=a.pt", "not both"),
    ],
)
def test_address_that_is_none_is_refused(query: str, words: str) -> None:
    with pytest.raises(OptionsInvalid, match=words):
        load(query)


def test_module_is_imported_from_the_working_directory_and_gets_a_card(module: dict[str, Any]) -> None:
    before = list(sys.path)
    model = load("mine.ckpt", **module, std="0.5,0.5,0.5")
    assert sys.path == before
    assert (model.card.name, model.card.labels) == ("colours", ("red", "green", "blue"))
    assert model.card.preprocessing.std == (0.5, 0.5, 0.5)
    assert (model.source.uri, model.data_set) == ("mine.ckpt", "")
    with torch.inference_mode():
        assert model.network(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


def test_module_with_a_card_needs_no_more(module: dict[str, Any]) -> None:
    content = torch.load("mine.ckpt", weights_only=True)
    card = {"name": "own", "labels": ["a", "b", "c"], "preprocessing": {"height": 16, "width": 16}}
    torch.save({**content, "card": card, "run_id": "abc"}, "mine.ckpt")
    model = load("mine.ckpt", module="mine:Net")
    assert (model.card.name, model.source.run_id) == ("own", "abc")


def test_what_a_card_lacks_is_named(module: dict[str, Any]) -> None:
    with pytest.raises(OptionsInvalid, match=r"brings no card; give --name, --input, --labels"):
        load("mine.ckpt", module="mine:Net")


def test_module_with_a_missing_layer_is_refused(module: dict[str, Any]) -> None:
    content = torch.load("mine.ckpt", weights_only=True)
    del content["state_dict"]["head.bias"]
    torch.save(content, "mine.ckpt")
    with pytest.raises(CheckpointInvalid, match=r"not a checkpoint of mine:Net: .*Missing key.*head\.bias"):
        load("mine.ckpt", **module)


@pytest.mark.parametrize(
    ("import_path", "words"),
    [("absent:Net", "No module named 'absent'"), ("mine:Absent", "no LightningModule"), ("pathlib:Path", "no Lightn")],
)
def test_class_that_is_none_is_refused(module: dict[str, Any], import_path: str, words: str) -> None:
    with pytest.raises(OptionsInvalid, match=words):
        load("mine.ckpt", **{**module, "module": import_path})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": "3x24x24"}, "does not take images of 24×24: .*shapes cannot be multiplied"),
        ({"labels": "two.txt"}, r"2 labels, .* scores \(2, 2\); the model returns \(2, 3\)"),
    ],
)
def test_card_that_does_not_fit_is_refused(module: dict[str, Any], fields: dict[str, str], words: str) -> None:
    Path("two.txt").write_text("yes\nno\n")
    with pytest.raises(CheckpointInvalid, match=words):
        load("mine.ckpt", **{**module, **fields})


def test_labels_that_cannot_be_read_are_refused(module: dict[str, Any]) -> None:
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    for name, words in (("absent.txt", "No such file"), ("latin.txt", "not UTF-8")):
        with pytest.raises(OptionsInvalid, match=f"labels: {name}: {words}"):
            load("mine.ckpt", **{**module, "labels": name})


def test_poisoned_checkpoint_of_a_module_is_never_executed(module: dict[str, Any]) -> None:
    content = torch.load("mine.ckpt", weights_only=True)
    torch.save({**content, "hook": Poison()}, "mine.ckpt")
    with pytest.raises(CheckpointInvalid, match="could execute code"):
        load("mine.ckpt", **module)
    assert not Path("executed").exists()


class Poison:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (Path("executed"),)


def test_remote_source_is_fetched_into_the_scratch_directory(tmp_path: Path) -> None:
    def fetch(source: str, directory: Path) -> SourceFile:
        assert directory == tmp_path
        return SourceFile(CHECKPOINT, source, "0" * 64, "run")

    options = ExportOptions.of({"source": "s3://bucket/digits.ckpt"})
    model = load_source(options, tmp_path, fetch)
    assert model.source.model_dump() == {"uri": "s3://bucket/digits.ckpt", "sha256": "0" * 64, "run_id": "run"}


def test_missing_file_and_nothing_to_fetch_with_are_told() -> None:
    with pytest.raises(CheckpointInvalid, match="no such file"):
        load("absent.ckpt")
    with pytest.raises(SourceFailed, match="nothing was given to fetch"):
        load("s3://bucket/digits.ckpt")
