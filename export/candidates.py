"""Makes, loads and verifies the candidates of one model."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from contract.formats import Candidate
from contract.manifest import Trial
from export import tensorrt
from export.errors import CheckpointInvalid, FormatFailed
from export.exporters import EXPORTERS, Exporter, Run
from export.gates import FP32, Gate, int8_gate
from export.images import ImageSets
from export.options import ExportOptions
from export.quantise import OpenVinoInt8Exporter
from export.served import ServedModel
from export.sources.source import SourceModel
from export.verify import eager_scores, verify

Exporters = Mapping[Candidate, Exporter]


def refusals(options: ExportOptions) -> dict[Candidate, str]:
    """What this machine cannot make of what was asked for, and why; known before any work is done."""
    if Candidate.TENSORRT.file_format not in options.formats or (reason := tensorrt.refusal()) is None:
        return {}
    return {Candidate.TENSORRT: reason}


def exporters_for(
    options: ExportOptions, model: SourceModel, images: ImageSets, work: Path, exporters: Exporters = EXPORTERS
) -> dict[Candidate, Exporter]:
    """An exporter for each candidate that was asked for, in the order to make them; INT8 needs FP32 before it."""
    asked = {Candidate(format_) for format_ in options.formats}
    known = {Candidate.TENSORRT: tensorrt.TensorRtExporter(model.card.batching.max_batch_size), **exporters}
    if options.int8 and images.calibration is not None:
        asked.add(Candidate.OPENVINO_INT8)
        known.setdefault(Candidate.OPENVINO_INT8, OpenVinoInt8Exporter(images.calibration, work / Candidate.OPENVINO))
    return {candidate: known[candidate] for candidate in Candidate if candidate in asked}


class Candidates:
    """The exported files of one model, each candidate's in a directory of its own.

    Attributes:
        served: The eager model, normalisation folded in.
        expected: (N, K), its scores of the images held out.
        trials: What became of each candidate so far.
        runs: Those that hold their gate.
    """

    def __init__(self, model: SourceModel, images: ImageSets, work: Path, on_step: Callable[[str], None]) -> None:
        max_batch_size = model.card.batching.max_batch_size
        self._trained = model.trained
        self._held_out = images.held_out
        self._work = work
        self._on_step = on_step
        self._batch_sizes = sorted({size for size in (1, 2, max_batch_size) if size <= max_batch_size})
        self.served = ServedModel(model.network, model.card.preprocessing)
        self.expected = eager_scores(self.served, images.held_out.images, max_batch_size)
        self.trials: dict[Candidate, Trial] = {}
        self.runs: dict[Candidate, Run] = {}
        if not np.isfinite(self.expected).all():
            raise CheckpointInvalid(f"{model.card.name}: the model's scores are not finite; train it anew")

    @property
    def eager_accuracy(self) -> float | None:
        """On the images held out, 0..1; None without labels."""
        return self._held_out.accuracy(self.expected)

    def drop(self, candidate: Candidate, reason: str) -> None:
        """Go on without it."""
        self.trials[candidate] = Trial(dropped=reason)

    def make(self, candidate: Candidate, exporter: Exporter) -> None:
        """Export and verify; a candidate that fails is dropped."""
        images = self._held_out.images
        directory = self._work / candidate
        directory.mkdir()
        figures = None
        try:
            self._on_step(f"exporting {candidate}")
            exporter.export(self.served, images[:2], directory)
            self._on_step(f"verifying {candidate} on {len(images)} images")
            run = exporter.load(directory)
            figures = verify(run, self._held_out, self.expected, self._batch_sizes)
            self._gate(candidate).judge(figures)
        except FormatFailed as failure:
            self.trials[candidate] = Trial(verification=figures, dropped=str(failure))
        else:
            self.trials[candidate] = Trial(verification=figures)
            self.runs[candidate] = run

    def _gate(self, candidate: Candidate) -> Gate:
        if candidate is Candidate.OPENVINO_INT8:
            return int8_gate(self.eager_accuracy, trained=self._trained)
        return FP32
