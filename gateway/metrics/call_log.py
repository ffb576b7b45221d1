"""One line in the log for a call, and no more; nothing of what was asked or answered."""

import random
from collections.abc import Callable

import structlog

from gateway.metrics.observation import OK, CallObservation
from gateway.metrics.settings import CallLogSettings, LoggedCalls

_MAX_ID = 128

_log = structlog.get_logger(__name__)


class CallLog:
    """Writes the calls that the settings name, so many a second at most; a line says how many were left out before it.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: CallLogSettings, clock: Callable[[], float]) -> None:
        self._all = settings.calls is LoggedCalls.ALL
        self._sample = settings.sample
        self._max_per_s = settings.max_per_s
        self._clock = clock
        self._second = 0
        self._written = 0
        self._left_out = 0

    def ended(self, observation: CallObservation, outcome: str, ended: float) -> None:
        """Write a call that ended, or not."""
        if outcome == OK and (not self._all or (self._sample < 1 and random.random() >= self._sample)):
            return
        if not self._has_room():
            self._left_out += 1
            return
        fields = _fields(observation, outcome, ended)
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        _log.info("call", **fields)

    def _has_room(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        return self._written <= self._max_per_s


def _fields(observation: CallObservation, outcome: str, ended: float) -> dict[str, object]:
    before = observation.started
    stages = {}
    for stage, at in observation.stages:
        stages[stage] = _ms(at - before)
        before = at
    fields: dict[str, object] = {
        "request_id": observation.request_id[:_MAX_ID],
        "tenant": observation.tenant,
        "model": observation.model,
        "version": observation.version,
        "outcome": outcome,
        "cache": observation.cache.value,
        "images": observation.images,
        "request_bytes": observation.request_bytes,
        "response_bytes": observation.response_bytes,
        "total_ms": _ms(ended - observation.started),
        "stages_ms": stages,
    }
    if observation.trace_id:
        fields["trace_id"] = observation.trace_id
    return fields


def _ms(seconds: float) -> float:
    return round(seconds * 1_000, 3)
