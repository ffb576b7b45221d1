"""From medians to the figures that have names, and to a table."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from loadtest.bench.drivers import Sample
from loadtest.page import drawing

Medians = Mapping[str, Sample]

CONCURRENCIES = (1, 4, 16, 64)
_LINES = ("gateway gRPC", "gateway REST", "direct gRPC")
_TITLES = {"J": "J: a photograph to ResNet-50 INT8", "S": "S: 3 KB to digits"}


def figures(medians: Medians) -> dict[str, float]:
    """Ratios by the id that docs/benchmarks.md explains."""

    def rate(name: str) -> float:
        return medians[name].requests_per_s

    limit = max(sample.requests_per_s for name, sample in medians.items() if name.startswith("J@16 limit"))
    return {
        "j16_grpc_over_limit": rate("J@16 gateway gRPC") / limit,
        "j16_rest_over_limit": rate("J@16 gateway REST") / limit,
        "j1_p50_over_limit": medians["J@1 gateway gRPC"].p50_ms / medians["J@1 limit batch 1"].p50_ms,
        "b4_over_direct": rate("B@4 gateway gRPC") / rate("B@4 direct gRPC"),
        "t4_over_direct": rate("T@4 gateway gRPC") / rate("T@4 direct gRPC"),
        "s16_over_relay": rate("S@16 gateway gRPC") / rate("S@16 relay gRPC"),
        "s1_added_p50_ms": medians["S@1 gateway gRPC"].p50_ms - medians["S@1 direct gRPC"].p50_ms,
        "h16_over_direct_s": rate("H@16 cached gRPC") / rate("S@16 direct gRPC"),
        "h16_over_direct_j": rate("H@16 cached gRPC") / rate("J@16 direct gRPC"),
    }


def text(medians: Medians, runs: int, seconds: float) -> str:
    """Both as Markdown."""
    ids = "\n".join(f"| `{name}` | {value:.3f} |" for name, value in figures(medians).items())
    rows = "\n".join(_row(name, sample) for name, sample in medians.items())
    return (
        f"Medians of {runs} interleaved runs of {seconds:g} s.\n\n| figure | |\n|---|---|\n{ids}\n\n"
        "| measured | requests/s | p50 ms | p99 ms | CPU-ms a request | peak MiB |\n|---|---|---|---|---|---|\n"
        f"{rows}\n"
    )


def _row(name: str, sample: Sample) -> str:
    cpu = ", ".join(f"{process} {value:.2f}" for process, value in sample.cpu_ms.items())
    memory = ", ".join(f"{process} {value:.0f}" for process, value in sample.peak_mib.items())
    return f"| {name} | {sample.requests_per_s:.1f} | {sample.p50_ms:.2f} | {sample.p99_ms:.2f} | {cpu} | {memory} |"


def plot(medians: Medians, path: Path) -> None:
    """Throughput against latency as callers become more, as SVG."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (letter, title) in zip(figure.subplots(1, len(_TITLES)), _TITLES.items(), strict=True):
        for line in _LINES:
            samples = [medians[f"{letter}@{concurrency} {line}"] for concurrency in CONCURRENCIES]
            rates, waits = [each.requests_per_s for each in samples], [each.p50_ms for each in samples]
            axes.plot(rates, waits, "o-", label=line)
            for concurrency, rate, wait in zip(CONCURRENCIES, rates, waits, strict=True):
                axes.annotate(str(concurrency), (rate, wait), textcoords="offset points", xytext=(3, 4), fontsize=7)
        axes.set(title=title, xlabel="answered, 1/s", ylabel="p50, ms", yscale="log", xlim=(0, None))
        axes.legend()
    path.write_text(drawing(figure))
