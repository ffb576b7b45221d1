"""What was seen of a canary and of what it is held against, and what follows."""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.routing.policy import Guard

_KEPT = 500
_MEDIANS_EVERY = 20


class Fault(StrEnum):
    """Why a canary is set to 0; the label `reason` of the metric."""

    ERRORS = "errors"
    LATENCY = "latency"
    DISAGREEMENT = "disagreement"


@dataclass(slots=True)
class Arm:
    """The answers of one version."""

    answers: int = 0
    errors: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, seconds: float | None, failed: bool) -> None:
        """One more; None where the time is not the version's alone."""
        self.answers += 1
        self.errors += failed
        if seconds is not None and not failed:
            self.seconds.append(seconds)

    @property
    def error_rate(self) -> float:
        """The share of answers that were errors."""
        return self.errors / self.answers if self.answers else 0.0

    @property
    def median_s(self) -> float:
        """Of the last good answers; 0 where there were none."""
        return sorted(self.seconds)[len(self.seconds) // 2] if self.seconds else 0.0


@dataclass(slots=True)
class Sample:
    """What one worker saw since the policy was set."""

    canary: Arm = field(default_factory=Arm)
    stable: Arm = field(default_factory=Arm)
    compared: int = 0
    disagreed: int = 0

    def verdict(self, guard: Guard) -> tuple[Fault, str] | None:
        """What is wrong with the canary, in words; None where nothing is, or too little was seen."""
        if self.canary.answers >= guard.min_sample:
            excess = self.canary.error_rate - self.stable.error_rate
            if excess > guard.max_error_rate:
                return Fault.ERRORS, (
                    f"{self.canary.errors} of {self.canary.answers} answers are errors, {self.stable.errors} of "
                    f"{self.stable.answers} of stable; allowed {guard.max_error_rate:g} more"
                )
            if (slow := self._slowdown(guard)) is not None:
                return Fault.LATENCY, slow
        limit = guard.max_disagreement
        if limit is not None and self.compared >= guard.min_sample and self.disagreed > limit * self.compared:
            return (
                Fault.DISAGREEMENT,
                f"{self.disagreed} of {self.compared} answers differ from stable's; allowed {limit:g}",
            )
        return None

    def _slowdown(self, guard: Guard) -> str | None:
        due = (self.canary.answers - guard.min_sample) % _MEDIANS_EVERY == 0
        timed = min(len(self.canary.seconds), len(self.stable.seconds))
        if guard.max_slowdown is None or timed < min(guard.min_sample, _KEPT) or not due:
            return None
        ours, theirs = self.canary.median_s, self.stable.median_s
        if not theirs or ours <= theirs * guard.max_slowdown:
            return None
        return f"its median is {ours:.3g} s, stable's {theirs:.3g} s; allowed {guard.max_slowdown:g} times that"
