"""One run as the search sees it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from loadtest.measured import Measured
from loadtest.slo import Slo


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of a run.

    Attributes:
        rate: Requests a second that were sent.
        answered_per_s: Good answers.
        latency_ms: By percentile of the SLO, as `p99`; None where that many had no answer.
        headroom: By how much latency is within the tightest bound; less than 1: it is not.
        held: The SLO was held.
    """

    rate: float
    answered_per_s: float
    latency_ms: dict[str, float | None]
    headroom: float
    held: bool

    @classmethod
    def of(cls, run: Measured, slo: Slo) -> Self:
        """Judge a run."""
        found = {f"p{fraction * 100:g}": run.quantile(fraction, failures=True) * 1_000 for fraction in slo.bounds}
        latency_ms = {name: round(ms, 3) if math.isfinite(ms) else None for name, ms in found.items()}
        return cls(run.rate, run.throughput, latency_ms, slo.headroom(run), not slo.broken(run))

    @classmethod
    def refused(cls, rate: float, slo: Slo) -> Self:
        """Of a model that the server would not load."""
        return cls(rate, 0.0, {f"p{fraction * 100:g}": None for fraction in slo.bounds}, 0.0, False)

    @property
    def close(self) -> bool:
        """Chance may have missed the SLO: whatever else the machine does may stop it for a moment, by any length."""
        return True

    def sentence(self) -> str:
        """In one line."""
        latencies = ", ".join(f"{name} {'-' if ms is None else f'{ms:.3g} ms'}" for name, ms in self.latency_ms.items())
        return f"{self.rate:.4g}/s: {latencies}, {'held' if self.held else 'not held'}"

    def to_message(self) -> dict[str, Any]:
        """For another process, and for a file."""
        return asdict(self)
