"""The commands of docs/export.md, run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from contract.manifest import Manifest
from contract.repository import ModelRepository
from tests.running import ROOT, tidegate

_PAGE = (ROOT / "docs" / "export.md").read_text()
_MODULE = """
from lightning.pytorch import LightningModule
from torch import nn


class FlowerNet(LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.save_hyperparameters()
        self.features = nn.Conv2d(3, 4, 16, stride=16)
        self.head = nn.Linear(4 * 14 * 14, classes)

    def forward(self, images):
        return self.head(self.features(images).relu().flatten(1))
"""
_LABELS = ("daisy", "rose")


def _block(language: str, words: str) -> str:
    (found,) = [text for text in re.findall(rf"^```{language}\n(.*?)^```$", _PAGE, re.M | re.S) if words in text]
    return str(found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a model of its owner's: module, checkpoint, labels and labelled photographs."""
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "__init__.py").touch()
    (tmp_path / "flowers" / "model.py").write_text(_MODULE)
    torch.manual_seed(0)
    layers = {"features": nn.Conv2d(3, 4, 16, stride=16), "head": nn.Linear(4 * 14 * 14, len(_LABELS))}
    weights = {f"{name}.{key}": tensor for name, layer in layers.items() for key, tensor in layer.state_dict().items()}
    (tmp_path / "runs").mkdir()
    hyper_parameters = {"classes": len(_LABELS)}
    torch.save({"state_dict": weights, "hyper_parameters": hyper_parameters}, tmp_path / "runs" / "best.ckpt")
    (tmp_path / "labels.txt").write_text("\n".join(_LABELS) + "\n")
    random = np.random.default_rng(0)
    for label in _LABELS:
        (tmp_path / "photographs" / label).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (25, 30, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
            Image.fromarray(pixels).save(tmp_path / "photographs" / label / f"{number}.png")
    return tmp_path


def _published(project: Path) -> Manifest:
    repository = ModelRepository(project / "model_repository")
    manifest = Manifest.read(repository.manifest("flowers", repository.versions("flowers")[-1]))
    manifest.check(repository.root)
    assert manifest.card.labels == _LABELS
    assert len(list((project / "state" / "reports").glob("flowers-v*.html"))) == manifest.version
    return manifest


def test_your_own_model_is_exported_by_the_command_and_by_the_file(project: Path) -> None:
    environment = {"TIDEGATE_STATE_DIR": str(project / "state")}
    _, *arguments = shlex.split(_block("sh", "FlowerNet").replace("\\\n", ""))
    arguments += ["--measure-s", "0.05"]
    exported = tidegate(*arguments, environment=environment, cwd=project)
    assert exported.returncode == 0, exported.stderr
    assert {"onnx", "openvino", "openvino-int8", "torchscript"} <= set(_published(project).candidates)
    (project / "tidegate.yaml").write_text(_block("yaml", "FlowerNet"))
    again = tidegate("export", "--measure-s", "0.05", environment=environment, cwd=project)
    assert again.returncode == 0, again.stderr
    manifest = _published(project)
    assert manifest.version == 2 and "torchscript" not in manifest.candidates


def test_a_published_version_is_read_as_shown() -> None:
    code = _block("python", "InferenceSession")
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).startswith("['")
