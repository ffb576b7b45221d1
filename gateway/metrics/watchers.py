"""Who else sees each call, beside the counters: the log of calls, traces, exemplars."""

from collections.abc import Callable
from typing import Protocol

from gateway.call import Headers
from gateway.metrics.observation import CallObservation

Ended = Callable[[CallObservation, str], None]


class Tracer(Protocol):
    """Makes the observations of calls that are traced."""

    def observe(self, ended: Ended, headers: Headers) -> CallObservation | None:
        """The observation of a call whose trace is kept; None where it is not."""

    async def close(self) -> None:
        """Export what is left."""


class Watcher(Protocol):
    """Told of each call that ended."""

    def ended(self, observation: CallObservation, outcome: str, ended: float) -> None:
        """A call ended, at a time on the clock of the observation."""


class CallWatchers:
    """None of them by default."""

    def __init__(self, tracer: Tracer | None = None, watchers: tuple[Watcher, ...] = ()) -> None:
        self._tracer = tracer
        self._watchers = watchers

    def observe(self, ended: Ended, headers: Headers) -> CallObservation:
        """The observation of a call that begins."""
        if self._tracer is not None and (traced := self._tracer.observe(ended, headers)) is not None:
            return traced
        return CallObservation(ended)

    def ended(self, observation: CallObservation, outcome: str, ended: float) -> None:
        """A call ended."""
        for watcher in self._watchers:
            watcher.ended(observation, outcome, ended)
