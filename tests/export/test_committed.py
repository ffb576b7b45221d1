"""The digits that come with the project."""

from pathlib import Path

import pytest

from contract.formats import Candidate, Format
from contract.manifest import Artifact, Manifest
from contract.repository import ModelRepository
from export.configs import shared_files
from export.exporters import EXPORTERS
from export.gates import FP32
from export.held_out import HeldOutImages
from export.load import Checkpoint
from export.options import DEFAULT_FORMATS
from export.served import ServedModel
from export.verify import eager_scores, verify
from tests.export.conftest import CHECKPOINT

REPOSITORY = ModelRepository(Path(__file__).parents[2] / "model_repository")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.read(REPOSITORY.manifest("digits", 1))


def test_committed_version_matches_its_manifest(manifest: Manifest) -> None:
    manifest.check(REPOSITORY.root)
    assert manifest.source.sha256 == Artifact.of(CHECKPOINT).sha256
    assert set(manifest.formats) == set(DEFAULT_FORMATS)


def test_committed_version_is_under_2_mb(manifest: Manifest) -> None:
    places = [
        path
        for name in (manifest.card.name, manifest.card.encoded_name)
        for folder in (REPOSITORY.root / name, REPOSITORY.root / name / "configs", REPOSITORY.version_dir(name, 1))
        for path in folder.iterdir()
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in places) < 2_000_000


@pytest.mark.parametrize("format_", DEFAULT_FORMATS)
def test_committed_format_agrees_with_the_committed_checkpoint(
    manifest: Manifest, served: ServedModel, held_out: HeldOutImages, format_: Format
) -> None:
    batch_size = manifest.card.batching.max_batch_size
    expected = eager_scores(served, held_out.images, batch_size)
    run = EXPORTERS[Candidate(format_)].load(REPOSITORY.version_dir("digits", 1))
    FP32.judge(verify(run, held_out, expected, [batch_size]))
    assert held_out.accuracy(expected) == manifest.test_accuracy


@pytest.mark.parametrize("name", ["digits", "digits_encoded"])
def test_committed_texts_are_those_of_the_card(manifest: Manifest, loaded: Checkpoint, name: str) -> None:
    assert manifest.card == loaded.card
    for path, data in shared_files(name, manifest, [manifest]).items():
        place = REPOSITORY.root / path
        assert (place.read_bytes() if place.exists() else None) == data


def test_committed_version_is_served_without_pytorch(manifest: Manifest) -> None:
    assert manifest.default_format is Format.OPENVINO
