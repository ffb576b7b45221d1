from pathlib import Path

import pytest

from contract.errors import RepositoryInvalid
from contract.repository import ModelRepository


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    for path in ("digits/1", "digits/10", "digits/2", "digits/.staging-3", "digits/configs", "digits/007", ".dvc/1"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "digits_encoded" / "11").mkdir(parents=True)
    (tmp_path / "README").touch()
    return ModelRepository(tmp_path)


def test_models_are_folders_and_versions_are_numbers(repository: ModelRepository) -> None:
    assert repository.model_names() == ("digits", "digits_encoded")
    assert repository.versions("digits") == (1, 2, 10)
    assert repository.versions("absent") == ()


def test_the_next_version_is_free_in_both_models(repository: ModelRepository) -> None:
    assert repository.next_version("digits") == 12
    assert repository.next_version("absent") == 1


def test_paths(repository: ModelRepository) -> None:
    root = repository.root
    assert repository.config("digits") == root / "digits" / "config.pbtxt"
    assert repository.config("digits", "gpu") == root / "digits" / "configs" / "gpu.pbtxt"
    assert repository.manifest("digits", 2) == root / "digits" / "2" / "manifest.json"


def test_an_absent_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryInvalid, match="absent"):
        ModelRepository(tmp_path / "absent").model_names()
