"""The report of a search: one HTML file with a plot, and its figures as JSON."""

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from contract.manifest import Machine
from loadtest.page import described, page, svg, table
from loadtest.tune.tuner import Outcome


@dataclass(frozen=True, slots=True)
class Subject:
    """What was tuned, and where.

    Attributes:
        slo: As it was given.
        load: What was sent.
    """

    model: str
    version: int
    slo: str
    load: str
    machine: Machine
    began_at: datetime


def write_report(subject: Subject, outcome: Outcome, directory: Path) -> Path:
    """Write `MODEL.html`, which needs no other file, and `MODEL.json`.

    Returns:
        The page.

    Raises:
        OSError: They cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = json.dumps(_document(subject, outcome), indent=1, allow_nan=False)
    (directory / f"{subject.model}.json").write_text(document + "\n")
    path = directory / f"{subject.model}.html"
    title = f"Tuning of {subject.model}, {subject.began_at:%Y-%m-%d %H:%M}"
    body = [_summary(subject, outcome), "<h2>Runs</h2>", _plot(outcome), _runs(outcome)]
    path.write_text(page(title, body), encoding="utf-8")
    return path


def _document(subject: Subject, outcome: Outcome) -> dict[str, Any]:
    comparison, winner = outcome.comparison, outcome.winner
    return {
        "model": subject.model,
        "version": subject.version,
        "began_at": subject.began_at.isoformat(timespec="seconds"),
        "machine": subject.machine.model_dump(),
        "slo": subject.slo,
        "load": subject.load,
        "rate": outcome.rate,
        "figure": outcome.figure,
        "before": outcome.before.model_dump(),
        "best": outcome.best.model_dump(),
        "winner": None if winner is None else winner.model_dump(),
        "figures_before": None if comparison is None else comparison.before,
        "figures_best": None if comparison is None else comparison.after,
        "runs": [{"tuning": trial.tuning.model_dump(), **trial.reading.to_message()} for trial in outcome.trials],
    }


def _summary(subject: Subject, outcome: Outcome) -> str:
    facts = {
        "Model": f"{subject.model} {subject.version}",
        "SLO": subject.slo,
        "Load": subject.load,
        "Machine": f"{subject.machine.processor}, {subject.machine.cores} cores",
        "Before": str(outcome.before),
        "Best of the search": str(outcome.best),
    }
    if (comparison := outcome.comparison) is not None:
        facts["Compared by"] = outcome.figure
        facts["Figures before"] = ", ".join(f"{each:.4g}" for each in comparison.before)
        facts["Figures of the best"] = ", ".join(f"{each:.4g}" for each in comparison.after)
    facts["Result"] = "the best is written" if outcome.winner else "what was there stays"
    return described(facts)


def _plot(outcome: Outcome) -> str:
    """Every run, those of a tuning together, in their order."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    latency, rate = figure.subplots(2, sharex=True)
    trials = list(enumerate(outcome.trials, 1))
    for name in outcome.trials[0].reading.latency_ms if outcome.trials else ():
        points = [(number, ms) for number, trial in trials if (ms := trial.reading.latency_ms[name]) is not None]
        latency.plot([number for number, _ in points], [ms for _, ms in points], ".", label=name)
    latency.set(ylabel="ms", yscale="log")
    latency.legend()
    for held, label in ((True, "SLO held"), (False, "not held")):
        points = [(number, trial.reading.rate) for number, trial in trials if trial.reading.held is held]
        rate.plot([number for number, _ in points], [each for _, each in points], "." if held else "x", label=label)
    rate.set(xlabel="run", ylabel="requests/s", ylim=(0, None))
    rate.legend()
    for tuning, group in groupby(trials, key=lambda each: each[1].tuning):
        numbers = [number for number, _ in group]
        if tuning == outcome.best != outcome.before:
            for axes in (latency, rate):
                axes.axvspan(numbers[0] - 0.5, numbers[-1] + 0.5, alpha=0.15, color="tab:green", lw=0)
    return svg(figure, "runs") + "<p>Green: runs of the best.</p>"


def _runs(outcome: Outcome) -> str:
    names = list(outcome.trials[0].reading.latency_ms) if outcome.trials else []
    header = ("run", "delay µs", "instances", "threads", "batch", "rate /s", *(f"{name} ms" for name in names), "SLO")
    rows = []
    for number, trial in enumerate(outcome.trials, 1):
        tuning, reading = trial.tuning, trial.reading
        latencies = ("-" if ms is None else f"{ms:.3g}" for ms in reading.latency_ms.values())
        numbers = (tuning.queue_delay_us, tuning.instances, tuning.threads or "as chosen", tuning.batch_size or "full")
        verdict = "held" if reading.held else "not held"
        rows.append((str(number), *map(str, numbers), f"{reading.rate:.4g}", *latencies, verdict))
    return table(header, rows)
