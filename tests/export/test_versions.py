"""How a version is run, where that was found out by measurement."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.manifest import Machine, Manifest, Tuned
from contract.model_config import from_pbtxt, tuning_of
from contract.repository import ModelRepository
from contract.tuning import Tuning
from export.errors import RepositoryFailed
from export.locations import open_store
from export.versions import Versions, not_running
from tests.publishable import Publishable

TUNED = Tuned(
    tuning=Tuning(queue_delay_us=0, instances=4, threads=1, batch_size=8),
    slo="p99=80ms",
    load="tensors",
    figure="requests/s that hold the SLO",
    before=(90, 91, 92),
    after=(100, 101, 102),
    machine=Machine(processor="one", cores=2),
    tuned_at=datetime(2026, 11, 25, tzinfo=UTC),
)


def _tuning(repository: ModelRepository, model: str, variant: str | None = None) -> Tuning:
    return tuning_of(from_pbtxt(repository.config(model, variant).read_text()))


@pytest.mark.parametrize("model", ["digits", "digits_encoded"])
def test_a_tuning_is_of_one_model_and_of_the_format_it_was_measured_with(
    digits: Publishable, tmp_path: Path, model: str
) -> None:
    repository = ModelRepository(tmp_path)
    digits.publish(tmp_path)
    served = digits.draft.default_format.backend
    others = {"onnxruntime", "openvino", "gpu"} - {served}
    before = {variant: _tuning(repository, model, variant) for variant in others}
    reloaded: list[str] = []
    Versions(open_store(tmp_path), "digits").tune(1, model, TUNED, reloaded.append)
    assert _tuning(repository, model) == _tuning(repository, model, served) == TUNED.tuning
    assert {variant: _tuning(repository, model, variant) for variant in others} == before
    (other,) = {"digits", "digits_encoded"} - {model}
    assert _tuning(repository, other) != TUNED.tuning
    assert set(reloaded) == {"digits", "digits_encoded"}
    for each in ("digits", "digits_encoded"):
        manifest = Manifest.read(repository.manifest(each, 1))
        manifest.check(tmp_path)
        assert manifest.tuned == {model: TUNED}


def test_a_tuning_goes_and_comes_back_with_its_version(digits: Publishable, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    digits.publish(tmp_path)
    default = _tuning(repository, "digits")
    versions = Versions(open_store(tmp_path), "digits")
    versions.tune(1, "digits", TUNED, not_running)
    assert digits.publish(tmp_path) == 2
    assert _tuning(repository, "digits") == default
    assert versions.withdraw(2, not_running) == 1
    assert _tuning(repository, "digits") == TUNED.tuning


def test_a_version_that_is_no_longer_live_is_not_tuned(digits: Publishable, tmp_path: Path) -> None:
    for _ in range(2):
        digits.publish(tmp_path)
    with pytest.raises(RepositoryFailed, match="no longer live"):
        Versions(open_store(tmp_path), "digits").tune(1, "digits", TUNED, not_running)
    assert Manifest.read(ModelRepository(tmp_path).manifest("digits", 1)).tuned == {}
