"""The report of a load test: one HTML file with the figures and plots in it."""

import math
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from loadtest.histogram import quantile
from loadtest.page import described, page, svg, table
from loadtest.results import FRACTIONS, Results, Run

_OVER_TIME = (0.5, 0.9, 0.99)


def write_report(results: Results, directory: Path) -> Path:
    """Write `report.html`, which needs no other file.

    Raises:
        OSError: It cannot be written.
    """
    path = directory / "report.html"
    path.write_text(_page(results), encoding="utf-8")
    return path


def _page(results: Results) -> str:
    title = f"Load on {results.settings.model}, {results.began_at:%Y-%m-%d %H:%M}"
    best = results.best
    body = [_summary(results), _notes(best)]
    body += ["<h2>Latency</h2>", _latency(best), _latency_over_time(best), _rate_over_time(best)]
    body += [
        "<h2>Throughput against latency</h2>",
        _throughput(results),
        _runs(results) if len(results.runs) > 1 else "",
    ]
    if best.decompositions:
        body += ["<h2>Where the time went</h2>", _sentences(best), _parts(best)]
    if best.server is not None and best.server.batches:
        body += ["<h2>Batches that were executed</h2>", _batches(best.server.batches)]
    return page(title, body)


def _summary(results: Results) -> str:
    settings, best = results.settings, results.best
    arrivals = f"{settings.arrivals}" + (f", {settings.shape}" if settings.shape else "")
    facts = {
        "Model": settings.model,
        "Requests": f"{settings.kind}, {settings.batch_size} images each",
        "Arrivals": f"{arrivals}, on {settings.connections} connections",
        "Rate": f"{best.client.rate:.4g}/s intended, {best.client.throughput:.4g}/s answered",
        "Images": f"{best.client.images / best.client.duration_s:.4g}/s",
        "Duration": f"{best.client.duration_s:.4g} s",
        "Outcomes": ", ".join(f"{count} {outcome}" for outcome, count in best.client.outcomes.most_common()),
    }
    if settings.find_max:
        found = results.max_rate
        facts["Highest rate that holds"] = "none of those tried" if found is None else f"{found:.4g}/s"
    if settings.slo:
        facts["SLO"] = f"{settings.slo}: " + ("held" if best.held else "; ".join(best.broken))
    return described(facts)


def _notes(run: Run) -> str:
    return "".join(f"<p><strong>Note:</strong> {escape(note)}.</p>" for note in run.notes())


def _latency(run: Run) -> str:
    header = ("caller", "answered", "failed", *(f"p{fraction * 100:g} ms" for fraction in FRACTIONS))
    callers: list[str | None] = [None, *run.client.tenants] if len(run.client.tenants) > 1 else [None]
    rows = []
    for caller in callers:
        good, outcomes = run.client.good(caller), run.client.outcomes_of(caller)
        figures = (_ms(quantile(good, fraction)) for fraction in FRACTIONS)
        rows.append((caller or "all", str(good.total()), str(outcomes.total() - good.total()), *figures))
    return table(header, rows) + "<p>From the intended start of a request to its answer; of good answers.</p>"


def _runs(results: Results) -> str:
    header = ("intended /s", "answered /s", "p50 ms", "p99 ms", "without a good answer", "SLO")
    rows = (
        (
            f"{run.client.rate:.4g}",
            f"{run.client.throughput:.4g}",
            _ms(run.client.quantile(0.5)),
            _ms(run.client.quantile(0.99)),
            f"{run.client.error_share:.2%}",
            "held" if run.held else "; ".join(run.broken),
        )
        for run in results.runs
    )
    return table(header, rows)


def _sentences(run: Run) -> str:
    return "".join(f"<p>{escape(each.sentence())}</p>" for each in run.decompositions) + (
        "<p>The parts are the server's own figures. Percentiles do not add up as means do: the sum is off by the share "
        "in brackets.</p>"
    )


def _latency_over_time(run: Run) -> str:
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    seconds = run.client.seconds()
    for fraction in _OVER_TIME:
        axes.plot(
            [second.number for second in seconds],
            [quantile(second.good, fraction) * 1_000 for second in seconds],
            marker=".",
            label=f"p{fraction * 100:g}",
        )
    axes.set(title="Latency of the requests that were to begin in each second", xlabel="s", ylabel="ms", ylim=(0, None))
    axes.legend()
    return svg(figure, "latency")


def _rate_over_time(run: Run) -> str:
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots()
    seconds = run.client.seconds()
    numbers = [second.number for second in seconds]
    answered = [second.good.total() for second in seconds]
    axes.bar(numbers, answered, label="answered")
    axes.bar(numbers, [second.failed for second in seconds], bottom=answered, label="without a good answer")
    axes.set(title="Requests", xlabel="s", ylabel="1/s")
    figure.legend(ncols=2, loc="outside lower center")
    return svg(figure, "requests")


def _throughput(results: Results) -> str:
    """Of each run; where there is one, of each of its seconds."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    runs = sorted(results.runs, key=lambda run: run.client.throughput)
    for fraction in (0.5, 0.99):
        if len(runs) > 1:
            points = [(run.client.throughput, run.client.quantile(fraction)) for run in runs]
        else:
            seconds = runs[0].client.seconds()
            points = sorted((second.good.total(), quantile(second.good, fraction)) for second in seconds)
        style = "o-" if len(runs) > 1 else "o"
        axes.plot([x for x, _ in points], [y * 1_000 for _, y in points], style, label=f"p{fraction * 100:g}")
    each = "run" if len(runs) > 1 else "second"
    axes.set(title=f"Each {each}", xlabel="answered, 1/s", ylabel="ms", ylim=(0, None), xlim=(0, None))
    axes.legend()
    return svg(figure, "throughput")


def _parts(run: Run) -> str:
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots()
    shown = run.decompositions
    labels = [f"p{each.fraction * 100:g}" for each in shown]
    left = [0.0] * len(shown)
    for name in shown[0].parts:
        widths = [each.parts.get(name, 0.0) * 1_000 for each in shown]
        axes.barh(labels, widths, left=left, label=name)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.plot([each.client_s * 1_000 for each in shown], labels, "k|", markersize=24, label="as the client measured it")
    axes.set(xlabel="ms")
    figure.legend(ncols=4, loc="outside lower center", markerscale=0.5)
    return svg(figure, "parts")


def _batches(batches: dict[int, int]) -> str:
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots()
    sizes = sorted(batches)
    axes.bar([str(size) for size in sizes], [batches[size] for size in sizes])
    executed = sum(batches.values())
    images = sum(size * count for size, count in batches.items())
    axes.set(
        title=f"{executed} executions, {images / executed:.2f} images at the mean", xlabel="images", ylabel="executions"
    )
    return svg(figure, "batches")


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.2f}" if math.isfinite(seconds) else ""
