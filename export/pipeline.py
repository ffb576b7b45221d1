"""A model's road, from its source to a version in the repository."""

import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.formats import Candidate, Target
from contract.manifest import Manifest, Trial
from export.candidates import Candidates, Exporters, exporters_for, refusals
from export.choose import Choice, choose
from export.errors import SourceFailed
from export.exporters import EXPORTERS
from export.golden import GOLDEN, GoldenImages
from export.held_out import HeldOutImages
from export.images import ImageSets, image_sets
from export.load import fit
from export.machine import machine
from export.measure import measure
from export.options import ExportOptions
from export.package import publish
from export.sources.resolve import load_source
from export.sources.source import Fetch, SourceFile, SourceModel
from export.verify import eager_scores

_TOOLCHAIN = ("lightning", "nncf", "numpy", "onnx", "onnxruntime", "onnxscript", "openvino", "torch", "torchvision")

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A published version."""

    manifest: Manifest

    @property
    def dropped(self) -> Mapping[Candidate, str]:
        """The candidates that are not in it, and why."""
        return {name: trial.dropped for name, trial in self.manifest.candidates.items() if trial.dropped is not None}


def nothing_remote(source: str, directory: Path) -> SourceFile:
    """Fetches nothing.

    Raises:
        SourceFailed: Always.
    """
    raise SourceFailed(f"{source}: is not on this machine, and nothing was given to fetch it with")


def export_model(
    options: ExportOptions,
    *,
    images: HeldOutImages | None = None,
    exporters: Exporters = EXPORTERS,
    fetch: Fetch = nothing_remote,
    on_step: OnStep,
) -> ExportResult:
    """Export a model, verify and measure each candidate, and publish what holds its gate as the next version.

    Args:
        images: What to verify on; None: see `image_sets`.
        exporters: By candidate, in place of those that come with the project.
        on_step: Told what is about to be done, in a few words.

    Raises:
        ExportError: Nothing was published; the kinds stand in `export.errors`.
    """
    refused = refusals(options)
    for candidate, reason in refused.items():
        on_step(f"leaving out {candidate}: {reason}")
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        on_step(f"loading {options.source}")
        model = load_source(options, work, fetch)
        sets = image_sets(model, options.calibration, images)
        candidates = Candidates(model, sets, work, on_step)
        for candidate, reason in refused.items():
            candidates.drop(candidate, reason)
        if options.int8 and sets.calibration is None:
            candidates.drop(Candidate.OPENVINO_INT8, "there are no images to calibrate on; give --calibration")
        for candidate, exporter in exporters_for(options, model, sets, work, exporters).items():
            if candidate not in candidates.trials:
                candidates.make(candidate, exporter)
        choice = choose(_measured(options, model, candidates, sets, on_step), options.target, options.serve)
        on_step(f"publishing into {options.publish}")
        draft = _draft(options, model, sets, candidates, choice)
        manifest = publish(options.publish, draft, _gathered(work, draft, _golden(model, sets, candidates)))
    return ExportResult(manifest)


def _measured(
    options: ExportOptions, model: SourceModel, candidates: Candidates, sets: ImageSets, on_step: OnStep
) -> dict[Candidate, Trial]:
    trials = candidates.trials
    if options.target is Target.GPU or not options.measure_s:
        return trials
    on_step(f"measuring {', '.join(candidates.runs)}")
    batch = model.card.batching.max_batch_size
    speeds = measure(candidates.runs, sets.held_out.images, batch, options.measure_s)
    return {
        candidate: trial.model_copy(update={"speed": speeds.get(candidate, ())}) for candidate, trial in trials.items()
    }


def _draft(
    options: ExportOptions, model: SourceModel, sets: ImageSets, candidates: Candidates, choice: Choice
) -> Manifest:
    held = {name: trial for name, trial in choice.trials.items() if trial.dropped is None}
    tried_int8 = Candidate.OPENVINO_INT8 in candidates.trials
    return Manifest(
        model=model.card.name,
        version=1,
        created_at=datetime.now(UTC),
        card=model.card,
        source=model.source,
        toolchain=_toolchain(),
        formats={
            name.file_format: trial.verification for name, trial in held.items() if trial.verification is not None
        },
        candidates=dict(choice.trials),
        default_format=choice.served.file_format,
        target=options.target,
        choice=choice.reason,
        verified_on=sets.verified_on,
        calibration=sets.calibrated_on if tried_int8 else None,
        machine=machine() if any(trial.speed for trial in choice.trials.values()) else None,
        test_accuracy=candidates.eager_accuracy,
        artifacts={},
    )


def _golden(model: SourceModel, sets: ImageSets, candidates: Candidates) -> bytes:
    return GoldenImages.of(
        model.card,
        sets.held_out.images,
        fit=fit,
        score=lambda images: eager_scores(candidates.served, images, len(images)),
    ).to_bytes()


def _gathered(work: Path, draft: Manifest, golden: bytes) -> Path:
    """One directory with the files of the version."""
    files = work / "version"
    files.mkdir()
    for name, trial in draft.candidates.items():
        if trial.dropped is None:
            for filename in name.file_format.filenames:
                shutil.move(work / name / filename, files / filename)
    (files / GOLDEN).write_bytes(golden)
    return files


def _toolchain() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _TOOLCHAIN}}
