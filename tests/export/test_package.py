from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from contract.formats import Format
from contract.manifest import Manifest
from contract.model_config import from_pbtxt
from contract.repository import ModelRepository
from export.errors import PublishFailed
from export.locations import open_store
from export.versions import Versions
from tests.publishable import Publishable

CONCURRENT = 8


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "fresh")


def named(repository: ModelRepository, model: str) -> list[int]:
    """The versions that a model's config names."""
    return list(from_pbtxt(repository.config(model).read_text()).version_policy.specific.versions)


def test_published_version_is_what_its_manifest_says(digits: Publishable, repository: ModelRepository) -> None:
    assert digits.publish(repository.root) == 1
    manifest = Manifest.read(repository.manifest("digits", 1))
    manifest.check(repository.root)
    found = {
        path.relative_to(repository.root).as_posix()
        for name in ("digits", "digits_encoded")
        for path in repository.version_dir(name, 1).iterdir()
    }
    assert found == {*manifest.artifacts, "digits/1/manifest.json", "digits_encoded/1/manifest.json"}
    assert "digits/1/golden.npz" in manifest.artifacts


def test_next_export_takes_the_next_version_of_both_models(digits: Publishable, repository: ModelRepository) -> None:
    for version in (1, 2, 3):
        assert digits.publish(repository.root) == version
    assert repository.versions("digits") == repository.versions("digits_encoded") == (1, 2, 3)
    for version in (1, 2, 3):
        Manifest.read(repository.manifest("digits", version)).check(repository.root)


@pytest.mark.parametrize("model", ["digits", "digits_encoded"])
def test_config_names_the_new_version_and_the_one_that_was_live(
    digits: Publishable, repository: ModelRepository, model: str
) -> None:
    for expected in ([1], [1, 2], [2, 3]):
        digits.publish(repository.root)
        assert named(repository, model) == expected


def test_concurrent_exports_each_get_a_version(digits: Publishable, repository: ModelRepository) -> None:
    barrier = Barrier(CONCURRENT)

    def export() -> int:
        barrier.wait()
        return digits.publish(repository.root)

    with ThreadPoolExecutor(CONCURRENT) as pool:
        versions = [future.result() for future in [pool.submit(export) for _ in range(CONCURRENT)]]
    assert sorted(versions) == list(range(1, CONCURRENT + 1))
    for version in versions:
        Manifest.read(repository.manifest("digits", version)).check(repository.root)
    assert max(named(repository, "digits")) == max(named(repository, "digits_encoded")) == CONCURRENT


def test_export_killed_at_any_step_leaves_whole_versions_alone(
    digits: Publishable, repository: ModelRepository
) -> None:
    killed = digits.publish_killed_at_every_step(repository.root, stride=1, environment={})
    # A copy of each file, and what confirms the names.
    assert killed > len(digits.draft.formats)
    for version in repository.versions("digits"):
        Manifest.read(repository.manifest("digits", version)).check(repository.root)
    assert set(named(repository, "digits_encoded")) <= set(named(repository, "digits"))
    assert set(named(repository, "digits")) <= set(repository.versions("digits"))
    assert Versions(open_store(repository.root), "digits").live == repository.versions("digits")[-1]


def test_missing_file_publishes_nothing(digits: Publishable, repository: ModelRepository) -> None:
    (digits.files / "model.bin").unlink()
    with pytest.raises(PublishFailed, match=r"model\.bin: No such file"):
        digits.publish(repository.root)
    assert not repository.root.exists()


def test_number_claimed_by_a_crash_between_the_two_renames_is_passed_over(
    digits: Publishable, repository: ModelRepository
) -> None:
    orphan = repository.version_dir("digits_encoded", 1)
    orphan.mkdir(parents=True)
    (orphan / "preprocessing.json").write_text("{}")
    assert digits.publish(repository.root) == 2
    assert repository.versions("digits") == (2,)
    assert named(repository, "digits_encoded") == [2]


def test_config_of_a_dropped_format_goes_away(digits: Publishable, repository: ModelRepository) -> None:
    digits.publish(repository.root)
    assert repository.config("digits", "onnxruntime").is_file()
    formats = {Format.OPENVINO: digits.draft.formats[Format.OPENVINO]}
    Publishable(digits.draft.model_copy(update={"formats": formats}), digits.files).publish(repository.root)
    for name in ("digits", "digits_encoded"):
        assert [path.name for path in (repository.root / name / "configs").iterdir()] == ["openvino.pbtxt"]


def test_config_of_a_format_names_the_versions_that_have_it(digits: Publishable, repository: ModelRepository) -> None:
    formats = {Format.OPENVINO: digits.draft.formats[Format.OPENVINO]}
    Publishable(digits.draft.model_copy(update={"formats": formats}), digits.files).publish(repository.root)
    digits.publish(repository.root)
    for name in ("digits", "digits_encoded"):
        variants = {
            variant: list(from_pbtxt(repository.config(name, variant).read_text()).version_policy.specific.versions)
            for variant in ("openvino", "onnxruntime")
        }
        assert variants == {"openvino": [1, 2], "onnxruntime": [2]}


@pytest.mark.parametrize("name", ["digits", "digits_encoded"])
def test_default_config_is_that_of_the_default_format(
    digits: Publishable, repository: ModelRepository, name: str
) -> None:
    digits.publish(repository.root)
    default = from_pbtxt(repository.config(name).read_text())
    assert default == from_pbtxt(repository.config(name, digits.draft.default_format.backend).read_text())
    assert default.name == name
    assert repository.labels(name).read_text().splitlines() == list("0123456789")


def test_model_that_was_not_exported_here_is_left_alone(digits: Publishable, repository: ModelRepository) -> None:
    repository.version_dir("digits", 1).mkdir(parents=True)
    repository.config("digits").write_text('name: "digits"\n')
    with pytest.raises(PublishFailed, match="choose another name"):
        digits.publish(repository.root)
    assert repository.config("digits").read_text() == 'name: "digits"\n'


def test_version_with_other_labels_is_refused(digits: Publishable, repository: ModelRepository) -> None:
    digits.publish(repository.root)
    card = digits.draft.card.model_copy(update={"labels": tuple("abcdefghij")})
    with pytest.raises(PublishFailed, match="other labels"):
        Publishable(digits.draft.model_copy(update={"card": card}), digits.files).publish(repository.root)
    assert repository.versions("digits") == (1,)
