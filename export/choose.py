"""Which candidates a version holds, and which of them `config.pbtxt` serves."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.formats import Candidate, Format, Target
from contract.manifest import Trial
from export.errors import VerificationFailed

# Those whose runtime is in the serving install. TorchScript needs PyTorch, which is not, and is served where asked for.
_LIGHT = (Candidate.OPENVINO_INT8, Candidate.OPENVINO, Candidate.ONNX)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        trials: All candidates; those that are not in the version have the reason.
        served: What `config.pbtxt` serves.
        reason: Why, in a few words.
    """

    trials: Mapping[Candidate, Trial]
    served: Candidate
    reason: str


def choose(trials: Mapping[Candidate, Trial], target: Target, serve: Format | None) -> Choice:
    """Keep one candidate of each format, and pick what is served: as asked, else for the target.

    Raises:
        VerificationFailed: What should be served was dropped, or nothing is left that could be.
    """
    kept = _one_a_format(trials)
    held = {candidate: trial for candidate, trial in kept.items() if trial.dropped is None}
    if serve is None and target is Target.GPU:
        serve, reason = Format.ONNX, "the portable GPU config; nothing was compared on a GPU"
    else:
        reason = "as asked"
    if serve is not None:
        return Choice(kept, _held(kept, held, serve), reason)
    light = [candidate for candidate in _LIGHT if candidate in held]
    if not light:
        raise VerificationFailed(f"no format is left to serve: {_reasons(kept)}")
    best = {candidate: point for candidate in light if (point := held[candidate].best) is not None}
    if not best:
        return Choice(kept, light[0], "the first that holds its gate; none was measured")
    fastest = max(best, key=lambda candidate: best[candidate].images_per_s)
    point = best[fastest]
    figures = f"{point.images_per_s:.0f} images/s at batch {point.batch_size}"
    return Choice(kept, fastest, f"the fastest that holds its gate: {figures}")


def _one_a_format(trials: Mapping[Candidate, Trial]) -> dict[Candidate, Trial]:
    """The two OpenVINO models have the same file names, which the versions of a model share."""
    kept = dict(trials)
    fp32, int8 = kept.get(Candidate.OPENVINO), kept.get(Candidate.OPENVINO_INT8)
    if fp32 is None or int8 is None or fp32.dropped is not None or int8.dropped is not None:
        return kept
    slower = fp32.best and int8.best and int8.best.images_per_s < fp32.best.images_per_s
    winner, loser = (fp32, Candidate.OPENVINO_INT8) if slower else (int8, Candidate.OPENVINO)
    name = Candidate.OPENVINO if winner is fp32 else Candidate.OPENVINO_INT8
    kept[loser] = kept[loser].model_copy(update={"dropped": f"a version holds one OpenVINO model, and {name} won"})
    return kept


def _held(kept: Mapping[Candidate, Trial], held: Mapping[Candidate, Trial], serve: Format) -> Candidate:
    for candidate in held:
        if candidate.file_format is serve:
            return candidate
    reason = kept[Candidate(serve)].dropped if Candidate(serve) in kept else "it is not among the formats"
    raise VerificationFailed(f"{serve}, which config.pbtxt would serve, failed: {reason}")


def _reasons(kept: Mapping[Candidate, Trial]) -> str:
    return "; ".join(f"{candidate}: {trial.dropped}" for candidate, trial in kept.items() if trial.dropped)
