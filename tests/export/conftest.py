import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.held_out import HeldOutImages
from export.load import Checkpoint, held_out_images, load_checkpoint
from export.options import ExportOptions
from export.pipeline import ExportResult, export_model
from export.served import ServedModel

CHECKPOINT = Path(__file__).parents[1] / "data" / "digits.ckpt"


def options(**fields: Any) -> ExportOptions:
    """Of an export of the digits that measures no speed, where `fields` do not say otherwise."""
    return ExportOptions.of({"source": str(CHECKPOINT), "measure_s": 0, **fields, "publish": str(fields["publish"])})


@pytest.fixture(scope="session")
def loaded() -> Checkpoint:
    return load_checkpoint(CHECKPOINT)


@pytest.fixture(scope="session")
def held_out(loaded: Checkpoint) -> HeldOutImages:
    images = held_out_images(loaded.card.name)
    assert images is not None
    return images


@pytest.fixture(scope="session")
def served(loaded: Checkpoint) -> ServedModel:
    return ServedModel(loaded.network, loaded.card.preprocessing)


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportResult, list[str]]:
    """The digits in all formats: the repository, the result and the steps reported."""
    repository = tmp_path_factory.mktemp("exported") / "repository"
    steps: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CHECKPOINT.parents[2])
        result = export_model(options(publish=repository, serve="openvino"), on_step=steps.append)
    return repository, result, steps


@pytest.fixture
def exported(exported_once: tuple[Path, ExportResult, list[str]], tmp_path: Path) -> tuple[Path, ExportResult]:
    """A copy of `exported_once` that a test may change."""
    repository, result, _ = exported_once
    return shutil.copytree(repository, tmp_path / "repository"), result


@pytest.fixture
def changed_checkpoint(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Saves the committed checkpoint anew after a change to its content."""

    def save(change: Callable[[dict[str, Any]], None]) -> Path:
        content = torch.load(CHECKPOINT, weights_only=True)
        change(content)
        torch.save(content, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return save
