"""The report of an export: one HTML file, with the figures and two plots in it."""

from collections.abc import Iterator
from html import escape
from io import StringIO
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from contract.formats import Candidate
from contract.manifest import Manifest, Trial

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { border-bottom: 1px solid #d0d7de; padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left }
td.text { text-align: left }
svg { height: auto; max-width: 100% }
"""


def write_report(manifest: Manifest, directory: Path) -> Path:
    """Write `NAME-vN.html`, which needs no other file.

    Raises:
        OSError: It cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{manifest.model}-v{manifest.version}.html"
    path.write_text(_page(manifest), encoding="utf-8")
    return path


def _page(manifest: Manifest) -> str:
    title = escape(f"{manifest.model} version {manifest.version}")
    body = [f"<h1>{title}</h1>", _summary(manifest), "<h2>Exactness</h2>", _exactness(manifest), _error_plot(manifest)]
    if any(trial.speed for trial in manifest.candidates.values()):
        body += ["<h2>Speed</h2>", _speed_note(manifest), _speed(manifest), _throughput_plot(manifest)]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _summary(manifest: Manifest) -> str:
    facts = {
        "Source": manifest.source.uri,
        "SHA-256": manifest.source.sha256,
        "Exported": manifest.created_at.isoformat(timespec="seconds"),
        "Target": manifest.target,
        "Served": f"{manifest.served or manifest.default_format}: {manifest.choice}",
        "Verified on": manifest.verified_on,
    }
    if manifest.calibration is not None:
        facts["INT8 calibrated on"] = f"{manifest.calibration.images} images: {manifest.calibration.origin}"
    if manifest.test_accuracy is not None:
        facts["Accuracy of the eager model"] = f"{manifest.test_accuracy:.2%}"
    rows = (f'<tr><th>{escape(name)}</th><td class="text">{escape(fact)}</td></tr>' for name, fact in facts.items())
    return f"<table>{''.join(rows)}</table>"


def _exactness(manifest: Manifest) -> str:
    header = ("candidate", "largest error", "mean error", "relative error", "same label", "accuracy", "dropped because")
    return _table(header, ((name, *_figures(trial)) for name, trial in manifest.candidates.items()))


def _figures(trial: Trial) -> tuple[str, ...]:
    found = trial.verification
    if found is None:
        return ("", "", "", "", "", trial.dropped or "")
    return (
        f"{found.max_abs_error:.1e}",
        f"{found.mean_abs_error:.1e}",
        "" if found.relative_error is None else f"{found.relative_error:.1e}",
        f"{found.top1_agreement:.2%}",
        "" if found.accuracy is None else f"{found.accuracy:.2%}",
        trial.dropped or "",
    )


def _speed_note(manifest: Manifest) -> str:
    machine = manifest.machine
    where = f"On {machine.processor}, {machine.cores} cores" if machine else "On one machine"
    return f"<p>{escape(where)}: one batch after another in a single process; images a second at the median.</p>"


def _speed(manifest: Manifest) -> str:
    header = ("candidate", "batch", "images/s", "p50 ms", "p99 ms", "batches timed")
    rows = (
        (name, str(p.batch_size), f"{p.images_per_s:.1f}", f"{p.p50_ms:.2f}", f"{p.p99_ms:.2f}", str(p.runs))
        for name, trial in manifest.candidates.items()
        for p in trial.speed
    )
    return _table(header, rows)


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _throughput_plot(manifest: Manifest) -> str:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, trial in manifest.candidates.items():
        if trial.speed:
            sizes = [point.batch_size for point in trial.speed]
            axes.plot(sizes, [point.images_per_s for point in trial.speed], marker="o", label=name)
    axes.set(title="Throughput", xlabel="batch size", ylabel="images/s", ylim=(0, None))
    axes.legend()
    return _svg(figure, "throughput")


def _error_plot(manifest: Manifest) -> str:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    compared: dict[Candidate, float] = {
        name: trial.verification.max_abs_error
        for name, trial in manifest.candidates.items()
        if trial.verification is not None
    }
    axes.barh(list(compared), list(compared.values()))
    axes.set(title="Largest error of a logit", xlabel="difference from the eager model")
    if all(error > 0 for error in compared.values()):
        axes.set_xscale("log")
    return _svg(figure, "error")


def _svg(figure: Figure, name: str) -> str:
    text = StringIO()
    # The same figures give the same file.
    with rc_context({"svg.hashsalt": "tidegate", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    # Only the element: an XML declaration has no place inside of HTML.
    return f'<figure id="{name}">{svg[svg.index("<svg") :]}</figure>'
