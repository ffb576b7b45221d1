"""Replicas that fail for one model, told by the calls themselves."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.settings import UpstreamSettings
from gateway.upstream.replica import Replica


@dataclass(slots=True)
class _Ejection:
    until: float
    times: int


class Outliers:
    """Ejects a replica for a model after failures in a row, longer each time, and never too many replicas at once.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._ejections: dict[tuple[int, str], _Ejection] = {}

    def failed(self, replica: Replica, model: str) -> bool:
        """Count a failure; whether the replica is to be ejected for the model."""
        failures = replica.failures.get(model, 0) + 1
        replica.failures[model] = failures
        return failures >= self._settings.failures_to_eject

    def eject(self, replica: Replica, model: str) -> None:
        """Begin an ejection."""
        now = self._clock()
        before = self._ejections.get((replica.index, model))
        # Well for as long as it was out the longest: it is as good as new.
        times = 1 if before is None or now > before.until + self._settings.max_eject_s else before.times + 1
        replica.failures.pop(model, None)
        until = now + min(self._settings.eject_s * times, self._settings.max_eject_s)
        self._ejections[replica.index, model] = _Ejection(until, times)

    def is_ejected(self, replica: Replica, model: str) -> bool:
        """Whether an ejection lasts."""
        ejection = self._ejections.get((replica.index, model))
        return ejection is not None and self._clock() < ejection.until

    def forget(self, kept: Iterable[Replica], models: frozenset[str]) -> None:
        """Drop what is known of replicas that are gone and of models that are not served."""
        indexes = {replica.index for replica in kept}
        self._ejections = {
            key: ejection for key, ejection in self._ejections.items() if key[0] in indexes and key[1] in models
        }

    def next_end(self) -> float | None:
        """When the next ejection that lasts ends."""
        now = self._clock()
        return min((each.until for each in self._ejections.values() if each.until > now), default=None)
