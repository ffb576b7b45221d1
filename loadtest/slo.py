"""What a server promises, and whether it was held."""

import math
import re
from dataclasses import dataclass
from typing import Self

from loadtest.errors import BadLoad
from loadtest.measured import Measured

_TERM = re.compile(r"p(?P<percent>\d{1,2}(?:\.\d+)?)=(?P<bound>\d+(?:\.\d+)?)(?P<unit>us|ms|s)")
_ERRORS = re.compile(r"errors=(?P<percent>\d+(?:\.\d+)?)%")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_DEFAULT_ERRORS = 0.001
# Of the slowest that a percentile tells apart, so that one outlier alone does not decide.
_TAIL = 10


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds on latency, and on the share of requests without a good answer.

    Attributes:
        bounds: By fraction, 0..1: seconds.
    """

    bounds: dict[float, float]
    errors: float = _DEFAULT_ERRORS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `p99=50ms`, or several terms with commas between; `errors=0.1%` is one, and the default.

        Raises:
            BadLoad: It is something else.
        """
        bounds: dict[float, float] = {}
        errors = _DEFAULT_ERRORS
        for term in text.replace(" ", "").split(","):
            if (latency := _TERM.fullmatch(term)) and float(latency["percent"]) > 0:
                bounds[float(latency["percent"]) / 100] = float(latency["bound"]) * _UNITS[latency["unit"]]
            elif failures := _ERRORS.fullmatch(term):
                errors = float(failures["percent"]) / 100
            else:
                raise BadLoad(f"--slo: {term!r} is neither like p99=50ms nor like errors=0.1%")
        if not bounds:
            raise BadLoad(f"--slo: {text!r} has no bound on latency, such as p99=50ms")
        return cls(bounds, errors)

    @property
    def samples(self) -> int:
        """Requests that a run must make for its highest percentile to mean something."""
        return math.ceil(_TAIL / (1 - max(self.bounds)))

    def headroom(self, run: Measured) -> float:
        """By how much latency is within the tightest bound: 2 where it is half of that, 0 where errors are too many."""
        if run.error_share > self.errors:
            return 0.0
        return min(bound / run.quantile(fraction, failures=True) for fraction, bound in self.bounds.items())

    def close(self, run: Measured) -> bool:
        """Nothing was missed by more than a factor of two: chance may have done it."""
        near = all(run.quantile(fraction, failures=True) <= 2 * bound for fraction, bound in self.bounds.items())
        return near and run.error_share <= 2 * self.errors

    def broken(self, run: Measured) -> list[str]:
        """What was not held, in words. A request without a good answer is slower than any bound."""
        reasons = [
            f"p{fraction * 100:g} is {in_words(found)}, over {in_words(bound)}"
            for fraction, bound in self.bounds.items()
            if not (found := run.quantile(fraction, failures=True)) <= bound
        ]
        if run.error_share > self.errors:
            reasons.append(f"{run.error_share:.2%} have no good answer, over {self.errors:.2%}")
        return reasons


def in_words(seconds: float) -> str:
    """Milliseconds with three figures."""
    return "more than was waited for" if math.isinf(seconds) else f"{seconds * 1_000:.3g} ms"
