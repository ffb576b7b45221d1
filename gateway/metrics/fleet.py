"""The figures of replicas, limits and rollouts."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class PrometheusFleet:
    """Labels are numbers of replicas and names and versions of served models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=registry)

        def gauge(name: str, about: str, mode: str, *labels: str) -> Gauge:
            return Gauge(name, about, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]  # A Literal there.

        self._retries = counter("tidegate_retries_total", "Requests sent once more, or not.", "model", "outcome")
        self._hedges = counter("tidegate_hedges_total", "Slow requests sent to a second replica too.", "model")
        self._large = counter(
            "tidegate_large_requests_total",
            "Requests of 256 KiB and more sent through shared memory, or why through gRPC.",
            "way",
        )
        self._ejections = counter("tidegate_replica_ejections_total", "Times that a replica was put out.", "replica")
        self._up = gauge("tidegate_replica_up", "The replica takes calls from every worker.", "livemin", "replica")
        self._limit = gauge("tidegate_concurrency_limit", "Calls of a model worked on at once.", "livesum", "model")
        self._moves = counter("tidegate_concurrency_limit_moves_total", "Changes of that limit.", "model", "reason")
        self._waiting = gauge("tidegate_waiting_calls", "Calls that wait for their turn.", "livesum", "model")
        self._weight = gauge(
            "tidegate_traffic_weight", "Share of a model's calls by policy.", "livemostrecent", "model", "version"
        )
        self._disagreements = counter(
            "tidegate_shadow_disagreements_total", "Answers that differed from the other version's.", "model"
        )
        self._tasks = gauge("tidegate_tasks", "Tasks of the workers' event loops.", "sum")
        self._rollbacks = counter("tidegate_canary_rollbacks_total", "Canaries set to 0.", "model", "reason")

    def retried(self, model: str, outcome: str) -> None:
        """A request was sent once more, or could not be."""
        self._retries.labels(model, outcome).inc()

    def hedged(self, model: str) -> None:
        """A slow request was sent to a second replica too."""
        self._hedges.labels(model).inc()

    def handed_over(self, way: str) -> None:
        """A large request was sent through shared memory, or why it was not."""
        self._large.labels(way).inc()

    def ejected(self, replica: int) -> None:
        """A replica takes no calls for a while."""
        self._ejections.labels(str(replica)).inc()

    def replica_up(self, replica: int, up: bool) -> None:
        """Whether a replica takes calls."""
        self._up.labels(str(replica)).set(float(up))

    def concurrency_limit(self, model: str, limit: float, moved: str | None = None) -> None:
        """So many calls of a model are worked on at once."""
        self._limit.labels(model).set(limit)
        if moved is not None:
            self._moves.labels(model, moved).inc()

    def waiting(self, model: str, calls: int) -> None:
        """So many calls of a model wait for their turn."""
        self._waiting.labels(model).set(calls)

    def traffic_weight(self, model: str, version: str, weight: float) -> None:
        """The share of a model's calls that a version gets, 0 to 1."""
        self._weight.labels(model, version).set(weight)

    def disagreed(self, model: str) -> None:
        """A version's answer was not the other's."""
        self._disagreements.labels(model).inc()

    def rolled_back(self, model: str, reason: str) -> None:
        """A canary was set to 0."""
        self._rollbacks.labels(model, reason).inc()

    def tasks(self, count: int) -> None:
        """So many tasks are on the event loop."""
        self._tasks.set(count)
