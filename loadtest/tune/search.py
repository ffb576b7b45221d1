"""The search: one number at a time, as long as that helps and there is time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from contract.tuning import Tuning

Axes = Mapping[str, Sequence[int | None]]
"""The values that each number of a tuning may have."""

_DELAYS_US = (0, 500, 2_000, 5_000)
# Never one: with a queue policy Triton then leaves requests waiting for up to half a second.
_INSTANCES = (2, 3, 4)
# What is less may be chance, and would send the search after it.
_GAIN = 0.1


def axes(*, cores: int, max_batch_size: int, on_gpu: bool) -> Axes:
    """What is tried on this machine.

    Args:
        on_gpu: Its engine has no threads to choose.
    """
    return {
        "queue_delay_us": _DELAYS_US,
        "instances": [*_INSTANCES, *(count for count in _powers(cores) if count > max(_INSTANCES))],
        "threads": [None] if on_gpu else [None, *_powers(cores)],
        "batch_size": [None, *_powers(max_batch_size - 1)],
    }


def _powers(most: int) -> list[int]:
    """1, 2, 4 … up to `most`."""
    return [1 << exponent for exponent in range(max(0, most).bit_length())]


def search(start: Tuning, tried: Axes, score: Callable[[Tuning], float], out_of_time: Callable[[], bool]) -> Tuning:
    """Change one number of the best so far to each of its values, until no change helps or the time is up.

    Before each number the best is scored anew, as a machine that is shared is now faster and now slower.

    Args:
        start: Scored first.
        score: More is better.
        out_of_time: Asked before each further score.
    """
    best, seen, improved = start, {start}, True
    while improved:
        improved = False
        for name, values in tried.items():
            if {best.model_copy(update={name: value}) for value in values} <= seen:
                continue
            best_score = score(best)
            for value in values:
                candidate = best.model_copy(update={name: value})
                if candidate in seen:
                    continue
                if out_of_time():
                    return best
                seen.add(candidate)
                found = score(candidate)
                if found > best_score * (1 + _GAIN):
                    best, best_score, improved = candidate, found, True
    return best


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tunings, measured in turns.

    Attributes:
        before: The figures of the one that is there.
        after: Those of the one that was found, as many.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def better(self) -> bool:
        """The worst figure of the one that was found is above the best of the other: more than the noise between them.

        Of two equal tunings, each measured three times, one is so by chance once in twenty times.
        """
        return min(self.after) > max(self.before)


def compare(before: Tuning, after: Tuning, figure: Callable[[Tuning], float], repeats: int) -> Comparison:
    """Measure both, in turns, so that whatever else the machine does meets both alike."""
    rounds = [(figure(before), figure(after)) for _ in range(repeats)]
    return Comparison(tuple(each for each, _ in rounds), tuple(each for _, each in rounds))
