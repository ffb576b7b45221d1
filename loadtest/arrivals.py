"""When requests are to begin, whatever becomes of those before them."""

import math
from collections.abc import Iterator
from random import Random

from loadtest.levels import Level
from loadtest.settings import Pattern


def arrivals(
    pattern: Pattern,
    rate: float,
    duration_s: float = math.inf,
    *,
    phase: float = 0.0,
    random: Random,
    level: Level | None = None,
) -> Iterator[float]:
    """Seconds from the beginning of a run, in order.

    Args:
        rate: A second, at the peak.
        phase: 0..1, where constant arrivals begin between two; several users with phases spread evenly are one stream.
        level: The share of the peak in the course of the run; None: the peak throughout.
    """
    offset = phase / rate if pattern is Pattern.CONSTANT else random.expovariate(rate)
    while offset < duration_s:
        share = 1.0 if level is None else level(offset / duration_s)
        if pattern is Pattern.CONSTANT:
            yield offset
            offset += 1 / (rate * share)
        else:
            # Thinned: a Poisson process at the peak, of which a share is kept, is one at that share of the peak.
            if random.random() < share:
                yield offset
            offset += random.expovariate(rate)
