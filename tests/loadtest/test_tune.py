"""The search of `tidegate tune`, on models that are formulas."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from contract.tuning import Tuning
from loadtest.errors import BadLoad, LoadError
from loadtest.measured import OK, Measured
from loadtest.slo import Slo
from loadtest.tune.reading import Reading
from loadtest.tune.search import Comparison, axes, search
from loadtest.tune.tuner import Outcome, Plan, Tuner

BEFORE = Tuning(queue_delay_us=2_000, instances=2)
BEST = Tuning(queue_delay_us=500, instances=4, threads=2, batch_size=4)
AXES = axes(cores=4, max_batch_size=8, on_gpu=False)
_SLO = Slo.parse("p50=100ms")


class _Model:
    """Holds the SLO up to a rate that is a formula of how it is run."""

    def __init__(self, capacity: Callable[[Tuning], float]) -> None:
        self._capacity = capacity
        self.served: list[Tuning] = []

    def serve(self, tuning: Tuning) -> bool:
        self.served.append(tuning)
        return self._capacity(tuning) > 0

    def run(self, rate: float, duration_s: float) -> Reading:
        headroom = self._capacity(self.served[-1]) / rate
        return Reading(rate, rate, {"p50": 100 / headroom}, headroom, headroom >= 1)


def _find(model: _Model, rate: float | None = 50.0, clock: Callable[[], float] = lambda: 0.0) -> Outcome:
    plan = Plan(_SLO, rate, duration_s=1, budget_s=10, repeats=3)
    return Tuner(model.serve, model.run, plan, lambda trial: None, clock).find(BEFORE, AXES)


def _capacity(tuning: Tuning) -> float:
    """The best is to wait 500 µs, 4 instances, 2 threads each, batches of 4."""
    threads, batch = tuning.threads or 1, tuning.batch_size or 8
    return 1_000 / (
        1 + abs(tuning.queue_delay_us - 500) / 1e3 + abs(tuning.instances - 4) + abs(threads - 2) + abs(batch - 4)
    )


@pytest.mark.parametrize("rate", [None, 50.0])
def test_the_best_is_found_and_wins(rate: float | None) -> None:
    outcome = _find(_Model(_capacity), rate)
    assert outcome.winner == BEST
    assert outcome.comparison is not None
    worst, best = max(outcome.comparison.before), min(outcome.comparison.after)
    assert worst < best and len(outcome.comparison.before) == len(outcome.comparison.after) == 3
    # Where none is given it is four fifths of the highest that the best holds, to 10 %.
    assert outcome.rate == rate if rate else 800 / 1.1 <= outcome.rate <= 800


def test_a_gain_that_may_be_chance_is_not_taken() -> None:
    outcome = _find(_Model(lambda tuning: 100 + tuning.instances))
    assert outcome.best == BEFORE and outcome.comparison is None and outcome.winner is None


def test_a_gain_that_does_not_show_again_does_not_win() -> None:
    noise: Iterator[float] = itertools.chain([1.0, 1.0, 2.0], itertools.repeat(1.0))

    def run(rate: float, duration_s: float) -> Reading:
        headroom = 1.0 if duration_s < 1 else next(noise)
        return Reading(rate, rate, {"p50": 100.0}, headroom, True)

    plan = Plan(_SLO, 50.0, duration_s=1, budget_s=10, repeats=3)
    outcome = Tuner(lambda tuning: True, run, plan, lambda trial: None).find(BEFORE, AXES)
    assert outcome.winner is None


def test_what_the_server_refuses_does_not_win_and_ends_nothing() -> None:
    outcome = _find(_Model(lambda tuning: 0 if tuning.instances > 2 else 100 * (tuning.threads or 1)))
    assert outcome.winner is not None and (outcome.winner.instances, outcome.winner.threads) == (2, 4)


def test_a_copy_that_is_not_served_ends_the_search() -> None:
    with pytest.raises(LoadError, match="not served"):
        _find(_Model(lambda tuning: 0))


def test_without_a_rate_what_is_there_must_hold_one() -> None:
    with pytest.raises(BadLoad, match="--rate"):
        _find(_Model(lambda tuning: 0.01), rate=None)


def test_the_search_ends_when_its_time_is_up() -> None:
    ticks = itertools.count(0, 3)
    model = _Model(_capacity)
    outcome = _find(model, clock=lambda: next(ticks))
    tried = {trial.tuning for trial in outcome.trials}
    # What is there, and others at 0, 3, 6 and 9 s; at 12 it is over.
    assert len(tried) == 5


def test_a_batch_and_instances_are_of_what_the_model_and_the_machine_have() -> None:
    found = axes(cores=2, max_batch_size=32, on_gpu=False)
    assert found["batch_size"] == [None, 1, 2, 4, 8, 16] and found["threads"] == [None, 1, 2]
    # Never one: Triton would then leave requests waiting.
    assert found["instances"] == [2, 3, 4]
    assert axes(cores=16, max_batch_size=1, on_gpu=False)["instances"] == [2, 3, 4, 8, 16]
    assert axes(cores=2, max_batch_size=1, on_gpu=True) == {**found, "batch_size": [None], "threads": [None]}


def test_equal_figures_are_not_better() -> None:
    assert not Comparison((1.0, 2.0, 3.0), (3.0, 4.0, 5.0)).better
    assert Comparison((1.0, 2.0, 3.0), (3.1, 4.0, 5.0)).better


def test_a_reading_says_how_far_latency_is_from_the_slo() -> None:
    run = Measured(rate=2, duration_s=1)
    for done_s in (0.04, 0.05):
        run.record("one", OK, 0, 0, done_s, 1)
    # A histogram's bucket is 1 % wide.
    assert Reading.of(run, Slo.parse("p99=100ms")).headroom == pytest.approx(2, rel=0.01)
    assert Reading.of(run, Slo.parse("p50=20ms,p99=100ms")).headroom == pytest.approx(0.5, rel=0.01)
    run.record("one", "UNAVAILABLE", 0, 0, 0.01, 1)
    reading = Reading.of(run, Slo.parse("p99=100ms"))
    assert (reading.headroom, reading.held, reading.latency_ms) == (0, False, {"p99": None})


def test_a_machine_that_becomes_slower_misleads_nobody() -> None:
    scored: list[Tuning] = []

    def score(tuning: Tuning) -> float:
        scored.append(tuning)
        # What is there and three other delays are behind us.
        return _capacity(tuning) / (10 if len(scored) > 4 else 1)

    assert search(BEFORE, AXES, score, lambda: False) == BEST
    assert len(scored) < 40
