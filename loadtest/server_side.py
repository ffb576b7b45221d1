"""What the server counted: read from its public endpoints before and after a run, and subtracted."""

import math
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.requests import target
from loadtest.settings import LoadSettings
from loadtest.tls import ssl_context

_STAGES = "tidegate_stage_duration_seconds"
_OK = "ok"
_TRITON = {
    "nv_inference_request_success": "requests",
    "nv_inference_exec_count": "executions",
    "nv_inference_queue_duration_us": "queue_us",
    "nv_inference_compute_input_duration_us": "compute_us",
    "nv_inference_compute_infer_duration_us": "compute_us",
    "nv_inference_compute_output_duration_us": "compute_us",
}
_TIMEOUT_S = 10.0

Labels = dict[str, str]
Key = TypeVar("Key")


def _zeros(found: Mapping[Key, float] | None = None) -> defaultdict[Key, float]:
    return defaultdict(float, found or {})


@dataclass(slots=True)
class Stage:
    """A histogram of seconds.

    Attributes:
        cumulative: Calls by the upper bound that they did not exceed.
    """

    cumulative: defaultdict[float, float] = field(default_factory=_zeros)
    count: float = 0.0
    total_s: float = 0.0

    def since(self, before: "Stage") -> "Stage":
        """What was added."""
        added = {bound: count - before.cumulative[bound] for bound, count in self.cumulative.items()}
        return Stage(_zeros(added), self.count - before.count, self.total_s - before.total_s)

    def mean(self, calls: float) -> float:
        """Seconds of one of so many calls, of which some may not have come here."""
        return self.total_s / calls if calls else 0.0

    def quantile(self, fraction: float, calls: float) -> float:
        """Seconds that a fraction of so many calls did not exceed, interpolated in its bucket.

        Args:
            calls: Those that did not come here took no time. In the lowest bucket, which tells nothing more, it is
                the mean.
        """
        rank = fraction * calls - (calls - self.count)
        if rank <= 0 or not self.count:
            return 0.0
        lowest = min(self.cumulative)
        if self.cumulative[lowest] >= rank:
            return min(lowest, self.mean(self.count))
        for (below, counted_below), (bound, counted) in pairwise([(0.0, 0.0), *sorted(self.cumulative.items())]):
            if math.isinf(bound):
                return below
            if counted >= rank:
                return below + (bound - below) * (rank - counted_below) / (counted - counted_below)
        return math.nan


@dataclass(slots=True)
class ServerSide:
    """Of the models that answered.

    Attributes:
        stages: The gateway's, by name; of calls that were answered.
        triton: Triton's counters, summed.
        batches: Executions by batch size; empty where the key may not see them.
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    triton: defaultdict[str, float] = field(default_factory=_zeros)
    batches: Counter[int] = field(default_factory=Counter)

    def since(self, before: "ServerSide") -> "ServerSide":
        """What was added."""
        stages = {name: stage.since(before.stages.get(name, Stage())) for name, stage in self.stages.items()}
        triton = {name: count - before.triton[name] for name, count in self.triton.items()}
        batches = Counter({size: count - before.batches[size] for size, count in self.batches.items()})
        return ServerSide(stages, _zeros(triton), +batches)

    @property
    def calls(self) -> float:
        """That the gateway answered."""
        return self.stages["total"].count if "total" in self.stages else 0.0


class Observer:
    """Reads a server's figures."""

    def __init__(self, settings: LoadSettings) -> None:
        """Describe the server.

        Raises:
            BadLoad: A file of the settings cannot be used.
        """
        kinds = [tenant.kind or settings.kind for tenant in settings.sharing()]
        self._models = frozenset(target(settings.model, kind) for kind in kinds)
        self._verify: ssl.SSLContext | bool = True
        self._metrics = f"http://{settings.metrics}/metrics"
        scheme = "http"
        if settings.tls:
            scheme, self._verify = "https", ssl_context(settings)
        self._statistics = [f"{scheme}://{settings.http}/v2/models/{model}/stats" for model in sorted(self._models)]
        self._headers = {"authorization": f"Bearer {settings.key.get_secret_value()}"}

    def read(self) -> ServerSide | None:
        """Everything until now; None where the metrics cannot be read."""
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, verify=self._verify) as client:
            try:
                answer = client.get(self._metrics)
                answer.raise_for_status()
                found = read_metrics(answer.text, self._models)
                for url in self._statistics:
                    statistics = client.get(url, headers=self._headers)
                    if statistics.is_success:
                        found.batches.update(_batches(statistics.json()))
            except httpx.HTTPError:
                return None
        return found


def read_metrics(text: str, models: frozenset[str]) -> ServerSide:
    """The figures of these models in an exposition."""
    found = ServerSide()
    for name, labels, value in _samples(text):
        if labels.get("model") not in models:
            continue
        if name in _TRITON:
            found.triton[_TRITON[name]] += value
        elif name.startswith(_STAGES) and labels.get("outcome") == _OK:
            stage = found.stages.setdefault(labels["stage"], Stage())
            match name.removeprefix(_STAGES):
                case "_bucket":
                    stage.cumulative[float(labels["le"])] += value
                case "_count":
                    stage.count += value
                case "_sum":
                    stage.total_s += value
    return found


def _samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The library gives counters the ending that OpenMetrics wants.
            yield sample.name.removesuffix("_total"), sample.labels, sample.value


def _batches(statistics: Any) -> Counter[int]:
    found: Counter[int] = Counter()
    for version in statistics["model_stats"]:
        for entry in version.get("batch_stats", []):
            found[int(entry["batch_size"])] += int(entry["compute_infer"]["count"])
    return found
