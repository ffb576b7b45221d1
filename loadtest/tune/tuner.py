"""Finds the tuning that holds an SLO best, by trying some under load."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from contract.tuning import Tuning
from loadtest.errors import BadLoad, LoadError
from loadtest.search import find_max
from loadtest.slo import Slo
from loadtest.tune.load import Run
from loadtest.tune.reading import Reading
from loadtest.tune.search import Axes, Comparison, compare, search

# Requests a second that are tried first where nothing is known, and at most.
_FIRST, _MOST = 200.0, 10_000.0
_PRECISION = 0.1
# Of a rate that another tuning of the model holds.
_NEAR = 1.25
_WARM_UP_S, _WARM_UP_RATE = 1.0, 50.0
# A run of the comparison is made longer than asked for, up to this, where it would have too few requests for the percentile.
_MAX_STRETCH = 3.0
# Of the highest rate that holds: at the edge itself everything disturbs.
_LOAD = 0.8
# The best of them counts: what else a machine does makes a run worse, and never better.
_RUNS = 2

Serve = Callable[[Tuning], bool]
"""Has the server run the model so; False where it will not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is searched, and for how long.

    Attributes:
        rate: Requests a second at which latency should be low; None: as many as hold the SLO.
        duration_s: Of a run.
        budget_s: Of the search, when what is there has been measured; the comparison comes after it.
        repeats: Of the comparison.
    """

    slo: Slo
    rate: float | None
    duration_s: float
    budget_s: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One run with one tuning."""

    tuning: Tuning
    reading: Reading


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    Attributes:
        best: Of the search; what was there where nothing was better.
        rate: Requests a second of its last runs.
        comparison: Of the two; None where they are one.
    """

    before: Tuning
    best: Tuning
    rate: float
    trials: tuple[Trial, ...]
    comparison: Comparison | None

    @property
    def figure(self) -> str:
        """What they are compared by."""
        return f"the SLO's bound over latency, at {self.rate:.4g} requests/s"

    @property
    def winner(self) -> Tuning | None:
        """What beats what was there by more than the noise."""
        return self.best if self.comparison is not None and self.comparison.better else None


class Tuner:
    """Makes the runs of a search and keeps them."""

    def __init__(
        self,
        serve: Serve,
        run: Run,
        plan: Plan,
        tell: Callable[[Trial], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the search.

        Args:
            tell: Called after each run.
        """
        self._serve = serve
        self._run = run
        self._plan = plan
        self._tell = tell
        self._clock = clock
        self._served: Tuning | None = None
        self._trials: list[Trial] = []
        self._ends_at: float | None = None

    def find(self, before: Tuning, tried: Axes) -> Outcome:
        """Search from what is there, and compare what was found with that.

        Raises:
            LoadError: A run cannot be made, or the server does not serve what is there.
            BadLoad: No rate is given, and what is there holds the SLO at none.
        """
        if not self._can_serve(before):
            raise LoadError("the copy of the model is not served; the log says why")
        best, rate = before, self._plan.rate or _LOAD * self._highest(before, _FIRST, step=2.0)
        if not rate:
            raise BadLoad("the config that is there holds the SLO at no rate: name one with --rate")
        while True:
            found = search(best, tried, lambda each: self._headroom(each, rate), self._out_of_time)
            if found == best or self._plan.rate is not None or self._out_of_time():
                break
            # Where what was there is well loaded, its betters have room to spare, and cannot be told apart.
            best, rate = found, max(rate, _LOAD * self._highest(found, rate, step=_NEAR))
        comparison = None
        if found != before:
            stretch = self._plan.slo.samples / rate / self._plan.duration_s
            stretch = min(max(1.0, stretch), _MAX_STRETCH)
            comparison = compare(before, found, lambda each: self._headroom(each, rate, stretch), self._plan.repeats)
        return Outcome(before, found, rate, tuple(self._trials), comparison)

    def _out_of_time(self) -> bool:
        """Counted from when it is first asked: what is there has been measured then."""
        now = self._clock()
        if self._ends_at is None:
            self._ends_at = now + self._plan.budget_s
        return now >= self._ends_at

    def _headroom(self, tuning: Tuning, rate: float, stretch: float = 1.0) -> float:
        return max(self._measure(tuning, rate, stretch).headroom for _ in range(_RUNS))

    def _highest(self, tuning: Tuning, first: float, *, step: float) -> float:
        """The highest rate that holds; 0 where none does."""

        def run(rate: float) -> Reading:
            return self._measure(tuning, rate)

        found = find_max(run, first, max_rate=_MOST, precision=_PRECISION, step=step, confirm=False)
        return found or 0.0

    def _measure(self, tuning: Tuning, rate: float, stretch: float = 1.0) -> Reading:
        if self._can_serve(tuning):
            reading = self._run(rate, self._plan.duration_s * stretch)
        else:
            reading = Reading.refused(rate, self._plan.slo)
        trial = Trial(tuning, reading)
        self._trials.append(trial)
        self._tell(trial)
        return reading

    def _can_serve(self, tuning: Tuning) -> bool:
        if tuning != self._served:
            self._served = tuning if self._serve(tuning) else None
            if self._served is not None:
                self._run(_WARM_UP_RATE, min(_WARM_UP_S, self._plan.duration_s))
        return self._served is not None
