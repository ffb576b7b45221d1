"""How a load changes while it runs, as a share of its peak."""

import math
from collections.abc import Callable, Mapping

from loadtest.settings import ShapeName

Level = Callable[[float], float]
"""From how much of the run is over, 0..1, to the share of the peak, more than 0 and at most 1."""

_STEPS = 5
_LOW = 0.2
_SPIKE = (0.45, 0.55)
_RAMP = 0.05


def steps(progress: float) -> float:
    """Five steps of equal length and height."""
    return (min(int(progress * _STEPS), _STEPS - 1) + 1) / _STEPS


def spike(progress: float) -> float:
    """A fifth of the peak, but for a tenth of the time in the middle."""
    return 1.0 if _SPIKE[0] <= progress < _SPIKE[1] else _LOW


def soak(progress: float) -> float:
    """The peak, after a short ramp."""
    return min(1.0, max(_LOW, progress / _RAMP))


def sine(progress: float) -> float:
    """From a fifth of the peak up to it and back, twice."""
    return _LOW + (1 - _LOW) * (1 - math.cos(4 * math.pi * progress)) / 2


LEVELS: Mapping[ShapeName, Level] = {
    ShapeName.STEPS: steps,
    ShapeName.SPIKE: spike,
    ShapeName.SOAK: soak,
    ShapeName.SINE: sine,
}
