"""What a load test found, as JSON and CSV."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtest.decomposition import Decomposition, decompose
from loadtest.histogram import mean, quantile
from loadtest.measured import Measured
from loadtest.server_side import ServerSide
from loadtest.settings import LoadSettings

FRACTIONS = (0.5, 0.9, 0.95, 0.99, 0.999)

_BUSY = 0.8
_LATE = 0.25
_FOREIGN = 0.01


@dataclass(frozen=True, slots=True)
class Run:
    """One run at one rate.

    Attributes:
        server: What the server counted in it; None where that cannot be read.
        broken: What of the SLO was not held, in words.
        close: It was missed by little.
    """

    client: Measured
    server: ServerSide | None
    broken: tuple[str, ...] = ()
    close: bool = False

    @property
    def held(self) -> bool:
        """The SLO was held, or there is none."""
        return not self.broken

    @property
    def decompositions(self) -> list[Decomposition]:
        """Of p50 and p99; none where the server's figures are missing."""
        found = [decompose(self.client, self.server, fraction) for fraction in (0.5, 0.99)] if self.server else []
        return [each for each in found if each is not None]

    def notes(self) -> list[str]:
        """Why the figures may not be what they seem."""
        client, notes = self.client, []
        busiest = max(client.cpu, default=0.0) / client.duration_s
        if busiest > _BUSY:
            notes.append(f"a process of the client was busy for {busiest:.0%} of the time: --workers spreads the load")
        late, latency = quantile(client.late, 0.99), client.quantile(0.99)
        if late > _LATE * latency:
            notes.append(f"p99 is the client's own by {late * 1_000:.3g} ms: that late were requests sent")
        if self.server is not None and abs(self.server.calls - client.answered) > max(2, _FOREIGN * client.answered):
            notes.append(
                f"the server answered {self.server.calls:.0f} calls and this client had {client.answered} answers: "
                "others used it too, or it counts not all of its workers"
            )
        return notes

    def sentence(self) -> str:
        """In one line."""
        client = self.client
        percentiles = ", ".join(
            f"p{fraction * 100:g} {client.quantile(fraction) * 1_000:.3g} ms" for fraction in (0.5, 0.99)
        )
        failed = f"{client.error_share:.2%} without a good answer"
        return f"{client.rate:.4g}/s: {client.throughput:.4g}/s answered, {percentiles}, {failed}"


@dataclass(frozen=True, slots=True)
class Results:
    """Of one `tidegate load`.

    Attributes:
        runs: In the order they were made.
        best: The run that the report is about: the only one, or the last at the rate that was found.
        max_rate: The highest that holds the SLO; None where it was not searched, or none holds.
    """

    settings: LoadSettings
    began_at: datetime
    runs: tuple[Run, ...]
    best: Run
    max_rate: float | None = None

    def write(self, directory: Path) -> None:
        """Write `results.json`, `runs.csv` and `seconds.csv`.

        Raises:
            OSError: They cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "results.json").write_text(json.dumps(self._document(), indent=1, allow_nan=False) + "\n")
        _write_csv(directory / "runs.csv", (_row(run) for run in self.runs))
        _write_csv(directory / "seconds.csv", self._seconds())

    def _document(self) -> dict[str, Any]:
        return {
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "settings": self.settings.model_dump(mode="json", exclude={"key"}),
            "max_rate": self.max_rate,
            "runs": [_described(run) for run in self.runs],
        }

    def _seconds(self) -> Iterator[dict[str, Any]]:
        for number, run in enumerate(self.runs):
            for second in run.client.seconds():
                yield {
                    "run": number,
                    "second": second.number,
                    "answered": second.good.total(),
                    "failed": second.failed,
                    **{f"p{fraction * 100:g}_ms": _ms(quantile(second.good, fraction)) for fraction in FRACTIONS},
                }


def _row(run: Run) -> dict[str, Any]:
    client = run.client
    return {
        "rate": client.rate,
        "duration_s": client.duration_s,
        "intended": client.count,
        "answered": client.answered,
        "answered_per_s": client.throughput,
        "images_per_s": client.images / client.duration_s,
        "error_share": client.error_share,
        "mean_ms": _ms(mean(client.good())),
        **{f"p{fraction * 100:g}_ms": _ms(client.quantile(fraction)) for fraction in FRACTIONS},
        "held": run.held,
    }


def _described(run: Run) -> dict[str, Any]:
    client, server = run.client, run.server
    tenants = {
        tenant: {
            "outcomes": dict(client.outcomes_of(tenant)),
            **{f"p{fraction * 100:g}_ms": _ms(quantile(client.good(tenant), fraction)) for fraction in FRACTIONS},
        }
        for tenant in client.tenants
    }
    return _row(run) | {
        "broken": list(run.broken),
        "notes": run.notes(),
        "outcomes": dict(client.outcomes),
        "tenants": tenants,
        "client_cpu_s": client.cpu,
        "sent_late_p99_ms": _ms(quantile(client.late, 0.99)),
        "parts": [
            {
                "percentile": each.fraction * 100,
                "client_ms": _ms(each.client_s),
                "sum_ms": _ms(each.sum_s),
                "parts_ms": {name: _ms(seconds) for name, seconds in each.parts.items()},
            }
            for each in run.decompositions
        ],
        "batches": {str(size): count for size, count in sorted(server.batches.items())} if server else {},
    }


def _ms(seconds: float) -> float | None:
    """Milliseconds; None, which JSON and CSV have a word for, where there is no such figure."""
    return round(seconds * 1_000, 4) if math.isfinite(seconds) else None


def _write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows, None)
    with path.open("w", newline="") as file:
        if first is not None:
            writer = csv.DictWriter(file, list(first))
            writer.writeheader()
            writer.writerow(first)
            writer.writerows(rows)
