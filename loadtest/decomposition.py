"""Where a request's time went: the client's percentile, in parts that the server measured for itself.

Percentiles do not add up as means do, so that the sum of the parts is compared with the client's figure and not forced
to it.
"""

from dataclasses import dataclass

from loadtest.histogram import quantile
from loadtest.measured import Measured
from loadtest.server_side import ServerSide

_TOTAL = "total"
_UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Decomposition:
    """One percentile of good answers.

    Attributes:
        client_s: As the client measured it, from the intended start.
        parts: Seconds, in the order of a request's road.
    """

    fraction: float
    client_s: float
    parts: dict[str, float]

    @property
    def sum_s(self) -> float:
        """Of the parts."""
        return sum(self.parts.values())

    @property
    def gap(self) -> float:
        """How much the sum is over the client's figure, as a share of it."""
        return self.sum_s / self.client_s - 1

    def sentence(self) -> str:
        """For example `41 ms = 2 gateway + 25 Triton queue + 13 compute + 1 network`."""
        parts = " + ".join(f"{seconds * 1_000:.3g} {name}" for name, seconds in self.parts.items())
        return f"p{self.fraction * 100:g}: {self.client_s * 1_000:.3g} ms = {parts} ({self.gap:+.1%})"


def decompose(run: Measured, server: ServerSide, fraction: float) -> Decomposition | None:
    """Split a percentile of the client's; None where the server did not measure the run.

    - client: the percentile from the intended start, less that from when a request was sent;
    - network: the latter, less the percentile of the gateway's whole call;
    - gateway: the percentiles of its stages before Triton, and what its calls took beside all stages, at the mean;
    - Triton: the percentile of the stage `upstream`, split by `_within`.

    A call takes no longer in the gateway than at the client, and no longer in Triton than in the gateway, so that
    neither do the percentiles: this bounds those that are interpolated.
    """
    calls = server.calls
    if not calls or not run.answered:
        return None
    client_s, service_s = run.quantile(fraction), quantile(run.service, fraction)
    stages = {name: stage for name, stage in server.stages.items() if name != _TOTAL}
    total = server.stages[_TOTAL]
    total_s = min(service_s, total.quantile(fraction, calls))
    beside_s = max(0.0, total.mean(calls) - sum(stage.mean(calls) for stage in stages.values()))
    own_s = sum(stage.quantile(fraction, calls) for name, stage in stages.items() if name != _UPSTREAM)
    parts = {
        "client": max(0.0, client_s - service_s),
        "network": service_s - total_s,
        "gateway": min(total_s, own_s + beside_s),
    }
    upstream = stages.get(_UPSTREAM)
    if upstream is not None and upstream.count:
        upstream_s = min(total_s, upstream.quantile(fraction, calls))
        parts |= _within(server, upstream.mean(upstream.count), upstream_s)
    return Decomposition(fraction, client_s, parts)


def _within(server: ServerSide, mean_s: float, seconds: float) -> dict[str, float]:
    """What Triton did in so much of the stage `upstream`.

    Triton publishes sums, and so means, of queue and compute, and no percentiles. What is over the mean of the stage
    counts as queue, where a wait has its tail; what is under it is split as the means are.
    """
    requests = server.triton["requests"]
    if not requests:
        return {"Triton": seconds}
    queue_s, compute_s = (server.triton[f"{name}_us"] / requests / 1e6 for name in ("queue", "compute"))
    road_s = max(0.0, mean_s - queue_s - compute_s)
    scale = min(1.0, seconds / (queue_s + compute_s + road_s))
    compute_s, road_s = compute_s * scale, road_s * scale
    return {"Triton queue": seconds - compute_s - road_s, "Triton compute": compute_s, "to and from Triton": road_s}
