"""Where the figures of calls, caches and the fleet go, as those see it who have some. `gateway/metrics/` stands behind."""

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from gateway.call import CacheStatus, Headers, Identity, no_headers


class CacheTier(StrEnum):
    """Where an answer was kept: `l1` in the process, `l2` in Redis."""

    L1 = "l1"
    L2 = "l2"


class CacheMetrics(Protocol):
    """Where the figures of the caches go."""

    def hit(self, model: str, tier: CacheTier) -> None:
        """An answer was found."""

    def rejected(self, model: str) -> None:
        """A value in Redis was none of ours, or no more what we wrote."""


class Observation(Protocol):
    """The figures of one call while it runs."""

    def stage(self, name: str) -> None:
        """The stage `name` ends now; the next begins."""

    def elapsed(self) -> list[tuple[str, float]]:
        """The stages that ended, and the seconds each took."""

    def called_by(self, identity: Identity) -> None:
        """The caller is known."""

    def asked(self, request_id: str, body_bytes: int, images: int) -> None:
        """The request was read."""

    def answered_by(self, model: str, version: str) -> None:
        """The model is known to be one that is served."""

    def cached(self, status: CacheStatus) -> None:
        """What the cache did."""

    def answered(self, body_bytes: int) -> None:
        """There is an answer; one of several, in a stream."""


class FleetFigures(Protocol):
    """Where the figures of replicas, limits and rollouts go. `replica` is a replica's number."""

    def retried(self, model: str, outcome: str) -> None:
        """A request was sent once more, or could not be."""

    def hedged(self, model: str) -> None:
        """A slow request was sent to a second replica too."""

    def handed_over(self, way: str) -> None:
        """A large request was sent through shared memory, or why it was not."""

    def ejected(self, replica: int) -> None:
        """A replica takes no calls for a while."""

    def replica_up(self, replica: int, up: bool) -> None:
        """Whether a replica takes calls."""

    def concurrency_limit(self, model: str, limit: float, moved: str | None = None) -> None:
        """So many calls of a model are worked on at once.

        Args:
            moved: Why it is another number than before; None where there was none before.
        """

    def waiting(self, model: str, calls: int) -> None:
        """So many calls of a model wait for their turn."""

    def traffic_weight(self, model: str, version: str, weight: float) -> None:
        """The share of a model's calls that a version gets, 0 to 1."""

    def disagreed(self, model: str) -> None:
        """A version's answer was not the other's."""

    def rolled_back(self, model: str, reason: str) -> None:
        """A canary was set to 0."""


class Metrics(Protocol):
    """Where figures go."""

    def observe(self, headers: Headers = no_headers) -> AbstractContextManager[Observation]:
        """Measure a call from entry to exit; an exception that leaves the block is its outcome.

        Args:
            headers: Those of the call, where it has its own.
        """

    def observe_stream(self) -> AbstractContextManager[None]:
        """Measure a stream of calls likewise; its calls are measured one by one."""
