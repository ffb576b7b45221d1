"""An export with everything: INT8, measured, chosen, reported."""

from html.parser import HTMLParser
from pathlib import Path

import openvino
import pytest

from contract.formats import Candidate, Format
from contract.manifest import Manifest
from contract.repository import ModelRepository
from export.pipeline import export_model
from export.report import write_report
from tests.export.conftest import options

SQUEEZENET = "torchvision:squeezenet1_1?seed=0"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRepository, Manifest]:
    repository = tmp_path_factory.mktemp("int8") / "repository"
    asked = options(publish=repository, formats="onnx,openvino", int8=True, measure_s=0.01)
    return ModelRepository(repository), export_model(asked, on_step=lambda step: None).manifest


def test_int8_of_the_digits_loses_at_most_half_a_point(digits: tuple[ModelRepository, Manifest]) -> None:
    manifest = digits[1]
    figures = manifest.candidates[Candidate.OPENVINO_INT8].verification
    assert figures is not None and figures.accuracy is not None and manifest.test_accuracy is not None
    assert manifest.test_accuracy - figures.accuracy <= 0.005
    assert manifest.calibration is not None
    assert (manifest.calibration.images, manifest.calibration.origin) == (300, "training images of digits")


def test_every_candidate_is_measured_and_the_fastest_served(digits: tuple[ModelRepository, Manifest]) -> None:
    manifest = digits[1]
    bests = {}
    for candidate, trial in manifest.candidates.items():
        assert [point.batch_size for point in trial.speed] == [1, 4, 8, 16, 32]
        assert trial.best is not None
        bests[candidate] = trial.best.images_per_s
    assert manifest.served == max(bests, key=lambda candidate: bests[candidate])


def test_version_holds_the_openvino_model_that_won(digits: tuple[ModelRepository, Manifest]) -> None:
    repository, manifest = digits
    model = openvino.Core().read_model(repository.version_dir("digits", 1) / "model.xml")
    quantised = "FakeQuantize" in {op.get_type_name() for op in model.get_ops()}
    winner = Candidate.OPENVINO_INT8 if quantised else Candidate.OPENVINO
    (loser,) = {Candidate.OPENVINO, Candidate.OPENVINO_INT8} - {winner}
    assert manifest.candidates[winner].dropped is None
    assert manifest.candidates[loser].dropped == f"a version holds one OpenVINO model, and {winner} won"
    assert manifest.formats[Format.OPENVINO] == manifest.candidates[winner].verification


def test_random_weights_are_calibrated_on_photographs_and_judged_by_relative_error(tmp_path: Path) -> None:
    asked = {"source": SQUEEZENET, "input": "3x64x64", "max_batch_size": 2, "formats": "openvino", "int8": True}
    manifest = export_model(options(publish=tmp_path, **asked), on_step=lambda step: None).manifest
    assert manifest.calibration is not None and "sample photographs" in manifest.calibration.origin
    int8 = manifest.candidates[Candidate.OPENVINO_INT8]
    assert int8.verification is not None and int8.verification.relative_error is not None
    passed = int8.verification.relative_error <= 0.1
    assert passed == (int8.dropped is None)
    assert manifest.served is (Candidate.OPENVINO_INT8 if passed else Candidate.OPENVINO)


class Tags(HTMLParser):
    """Counts elements, and collects what they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        if tag in {"img", "script", "link", "iframe"}:
            self.loaded.append(tag)


def test_report_has_both_plots_and_the_figures_and_loads_nothing(
    digits: tuple[ModelRepository, Manifest], tmp_path: Path
) -> None:
    manifest = digits[1]
    path = write_report(manifest, tmp_path / "reports")
    assert path == tmp_path / "reports" / "digits-v1.html"
    page = path.read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.found.count("svg") == 2 and tags.loaded == []
    for words in ("Throughput", "Largest error of a logit", "batch size", "images/s", "training images of digits"):
        assert words in page
    for candidate, trial in manifest.candidates.items():
        assert trial.verification is not None and f"{trial.verification.max_abs_error:.1e}" in page
        for point in trial.speed:
            cells = (candidate, str(point.batch_size), f"{point.images_per_s:.1f}")
            assert "".join(f"<td>{cell}</td>" for cell in cells) in page


def test_report_is_the_same_for_the_same_manifest_and_shows_text_as_text(
    digits: tuple[ModelRepository, Manifest], tmp_path: Path
) -> None:
    manifest = digits[1].model_copy(update={"choice": "<script>alert(1)</script>"})
    pages = [write_report(manifest, tmp_path / name).read_text() for name in ("first", "again")]
    assert pages[0] == pages[1]
    assert "<script>" not in pages[0]
