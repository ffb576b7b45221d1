"""The figures of the response caches."""

from prometheus_client import CollectorRegistry, Counter

from gateway.figures import CacheTier


class CacheCounters:
    """Hits by tier, and what was found in Redis that is none of ours."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._hits = Counter(
            "tidegate_cache_hits_total",
            "Answers found in a cache: l1 is the worker's memory, l2 Redis.",
            ("model", "tier"),
            registry=registry,
        )
        self._rejected = Counter(
            "tidegate_cache_rejected_total",
            "Values in Redis that were corrupt or foreign, and counted as misses.",
            ("model",),
            registry=registry,
        )
        self._children: dict[tuple[str, CacheTier], Counter] = {}

    def hit(self, model: str, tier: CacheTier) -> None:
        """An answer was found."""
        child = self._children.get((model, tier))
        if child is None:
            child = self._children[model, tier] = self._hits.labels(model, tier.value)
        child.inc()

    def rejected(self, model: str) -> None:
        """A value in Redis was none of ours, or no more what we wrote."""
        self._rejected.labels(model).inc()
