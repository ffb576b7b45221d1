import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.errors import ManifestInvalid
from contract.formats import Candidate, Format, Target
from contract.manifest import Artifact, Manifest
from contract.model_config import from_pbtxt
from contract.repository import ModelRepository
from export.errors import CheckpointInvalid, VerificationFailed
from export.exporters import EXPORTERS, Exporter, Run
from export.gates import FP32
from export.options import DEFAULT_FORMATS
from export.pipeline import ExportResult, export_model
from export.served import ServedModel
from tests.export.conftest import CHECKPOINT, options


class Off:
    """Exports a model whose first score is off."""

    def __init__(self, exporter: Exporter, by: float) -> None:
        self._exporter = exporter
        self._by = by

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        wrong = copy.deepcopy(served)
        with torch.no_grad():
            wrong.network.get_parameter("head.bias")[0] += self._by
        self._exporter.export(wrong, example, directory)

    def load(self, directory: Path) -> Run:
        return self._exporter.load(directory)


def off(candidate: Candidate, by: float = 0.1) -> Mapping[Candidate, Exporter]:
    return {**EXPORTERS, candidate: Off(EXPORTERS[Candidate(candidate.file_format)], by)}


def silent(step: str) -> None:
    """For an export whose steps are not looked at."""


def test_manifest_tells_what_was_made_from_what(exported_once: tuple[Path, ExportResult, list[str]]) -> None:
    repository, result, _ = exported_once
    manifest = Manifest.read(repository / "digits" / "1" / "manifest.json")
    assert manifest == result.manifest
    assert manifest.source.uri == "tests/data/digits.ckpt"
    assert manifest.source.sha256 == Artifact.of(CHECKPOINT).sha256
    assert manifest.test_accuracy is not None and manifest.test_accuracy >= 0.98
    assert manifest.default_format is Format.OPENVINO
    assert manifest.served is Candidate.OPENVINO
    assert (manifest.target, manifest.choice) == (Target.CPU, "as asked")
    assert manifest.verified_on == "the test images of digits"
    assert set(manifest.formats) == set(DEFAULT_FORMATS)
    for verification in manifest.formats.values():
        assert (verification.batch_sizes, verification.images) == ((1, 2, 32), 360)
        assert verification.max_abs_error <= FP32.max_abs_error
    assert {"torch", "onnx", "onnxruntime", "openvino"} <= set(manifest.toolchain)
    assert result.dropped == {}


def test_every_step_is_reported(exported_once: tuple[Path, ExportResult, list[str]]) -> None:
    _, _, steps = exported_once
    assert [step.split()[0] for step in steps] == ["loading", *["exporting", "verifying"] * 3, "publishing"]


def test_no_artifact_tells_of_the_machine(exported_once: tuple[Path, ExportResult, list[str]]) -> None:
    repository, _, _ = exported_once
    checkout = str(Path(__file__).parents[2]).encode()
    for path in repository.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert checkout not in data and b"site-packages" not in data, path


def test_flipped_byte_of_an_artifact_is_caught(exported: tuple[Path, ExportResult]) -> None:
    repository, result = exported
    result.manifest.check(repository)
    for name in result.manifest.artifacts:
        data = (repository / name).read_bytes()
        (repository / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ManifestInvalid, match=name):
            result.manifest.check(repository)
        (repository / name).write_bytes(data)


def test_format_that_is_off_is_dropped_with_its_reason_and_its_figures(tmp_path: Path) -> None:
    result = export_model(
        options(publish=tmp_path, formats=("torchscript", "openvino")),
        exporters=off(Candidate.TORCHSCRIPT),
        on_step=silent,
    )
    assert set(result.manifest.formats) == {Format.OPENVINO}
    assert result.dropped[Candidate.TORCHSCRIPT].startswith("a score is off by 0.1")
    figures = result.manifest.candidates[Candidate.TORCHSCRIPT].verification
    # FP32 keeps seven digits of scores that reach the tens.
    assert figures is not None and figures.max_abs_error == pytest.approx(0.1, abs=1e-4)
    assert not (tmp_path / "digits" / "1" / "model.pt").exists()
    assert not (tmp_path / "digits" / "configs" / "pytorch.pbtxt").exists()


def test_format_to_serve_that_is_off_publishes_nothing(tmp_path: Path) -> None:
    asked = options(publish=tmp_path, formats="openvino", serve="openvino")
    with pytest.raises(VerificationFailed, match="openvino, which .* failed: a score is off by 0.1"):
        export_model(asked, exporters=off(Candidate.OPENVINO), on_step=silent)
    assert list(tmp_path.iterdir()) == []


def test_nothing_left_to_serve_publishes_nothing(tmp_path: Path) -> None:
    asked = options(publish=tmp_path, formats="torchscript,onnx")
    with pytest.raises(VerificationFailed, match="no format is left to serve: onnx: a score is off by 0.1"):
        export_model(asked, exporters=off(Candidate.ONNX), on_step=silent)
    assert list(tmp_path.iterdir()) == []


def test_int8_that_loses_accuracy_is_dropped_and_fp32_served(tmp_path: Path) -> None:
    result = export_model(
        options(publish=tmp_path, formats="openvino", int8=True),
        exporters=off(Candidate.OPENVINO_INT8, by=100),
        on_step=silent,
    )
    assert result.dropped.keys() == {Candidate.OPENVINO_INT8}
    assert "points of accuracy, more than 0.5" in result.dropped[Candidate.OPENVINO_INT8]
    assert result.manifest.served is Candidate.OPENVINO
    assert result.manifest.formats[Format.OPENVINO].max_abs_error <= FP32.max_abs_error


def test_gpu_target_serves_onnx_by_tensorrt_and_measures_nothing(tmp_path: Path) -> None:
    asked = options(publish=tmp_path, formats="onnx,tensorrt", target="gpu", measure_s=0.01)
    result = export_model(asked, on_step=silent)
    assert "no CUDA GPU" in result.dropped[Candidate.TENSORRT]
    assert "nothing was compared on a GPU" in result.manifest.choice
    assert all(not trial.speed for trial in result.manifest.candidates.values())
    repository = ModelRepository(tmp_path)
    config = from_pbtxt(repository.config("digits").read_text())
    assert config == from_pbtxt(repository.config("digits", "gpu").read_text())
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"


def test_weights_that_are_not_finite_are_refused(
    changed_checkpoint: Callable[[Callable[[dict[str, Any]], None]], Path], tmp_path: Path
) -> None:
    path = changed_checkpoint(lambda content: content["state_dict"]["network.head.bias"].fill_(np.nan))
    with pytest.raises(CheckpointInvalid, match="not finite"):
        export_model(options(source=str(path), publish=tmp_path / "repository"), on_step=silent)


def test_checkpoint_from_elsewhere_is_named_without_its_path(tmp_path: Path) -> None:
    path = Path(shutil.copy(CHECKPOINT, tmp_path / "mine.ckpt"))
    asked = options(source=str(path), publish=tmp_path / "repository", formats="openvino")
    assert export_model(asked, on_step=silent).manifest.source.uri == "mine.ckpt"
