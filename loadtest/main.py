"""One load test, from its settings to its results."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from loadtest.asked import answer
from loadtest.driver import Driver, driver, work
from loadtest.errors import BadLoad, LoadError
from loadtest.report import write_report
from loadtest.results import Results, Run
from loadtest.search import find_max
from loadtest.server_side import Observer
from loadtest.settings import LoadSettings
from loadtest.slo import Slo

_FAILURE, _BAD_INPUT = 1, 2
# A run of a search is made longer than asked for, up to this, where it would have too few requests for the percentile.
_MAX_STRETCH = 10.0


def main(arguments: Sequence[str]) -> int:
    """Make a load test, or a worker of one, or runs as they are asked for; the status of the process: 1 where the SLO was not held."""
    try:
        if arguments[:1] == ["worker"]:
            work(int(arguments[1]))
            return 0
        if arguments[:1] == ["asked"]:
            answer(LoadSettings(), sys.stdin, sys.stdout)
            return 0
        results = load(LoadSettings(), print)
        results.write(results.settings.out)
        report = write_report(results, results.settings.out)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = f"TIDEGATE_LOAD_{str(first['loc'][0]).upper()}" if first["loc"] else "TIDEGATE_LOAD_…"
        return _complain(f"{name}: {first['msg'].removeprefix('Value error, ')}", _BAD_INPUT)
    except LoadError as error:
        return _complain(str(error), _BAD_INPUT if isinstance(error, BadLoad) else _FAILURE)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", _FAILURE)
    for each in results.best.decompositions:
        print(each.sentence())
    for note in results.best.notes():
        print(f"note: {note}", file=sys.stderr)
    print(f"report: {report}")
    if results.settings.find_max:
        found = results.max_rate
        print(
            "no rate that was tried holds the SLO" if found is None else f"the highest rate that holds is {found:.4g}/s"
        )
        return 0 if found is not None else _FAILURE
    return 0 if results.best.held else _FAILURE


def load(settings: LoadSettings, tell: Callable[[str], None]) -> Results:
    """Warm up, and make one run or a search.

    Args:
        tell: Called with a line a run.

    Raises:
        LoadError: It cannot be made.
    """
    slo = None if settings.slo is None else Slo.parse(settings.slo)
    observer = Observer(settings)
    began_at = datetime.now(UTC)
    with driver(settings) as made:
        made.run(settings.rate, settings.warmup_s)
        trial = _Trial(made, observer, settings, slo, tell)
        if not settings.find_max:
            run = trial(settings.rate, settings.duration_s)
            return Results(settings, began_at, tuple(trial.runs), run)
        if slo is None:
            raise BadLoad("--find-max needs an --slo, such as p99=50ms")
        if settings.shape is not None:
            raise BadLoad("--find-max searches a rate that is held throughout: leave out --shape")
        found = find_max(trial.long_enough, settings.rate, max_rate=settings.max_rate, precision=settings.precision)
    held = [run for run in trial.runs if run.client.rate == found]
    return Results(settings, began_at, tuple(trial.runs), held[-1] if held else trial.runs[-1], found)


class _Trial:
    """Makes runs and keeps them."""

    def __init__(
        self, made: Driver, observer: Observer, settings: LoadSettings, slo: Slo | None, tell: Callable[[str], None]
    ) -> None:
        self._driver = made
        self._observer = observer
        self._settings = settings
        self._slo = slo
        self._tell = tell
        self.runs: list[Run] = []

    def __call__(self, rate: float, duration_s: float) -> Run:
        before = self._observer.read()
        client = self._driver.run(rate, duration_s)
        after = self._observer.read()
        server = None if before is None or after is None else after.since(before)
        slo = self._slo
        broken, close = ((), False) if slo is None else (tuple(slo.broken(client)), slo.close(client))
        run = Run(client, server, broken, close)
        self.runs.append(run)
        verdict = "" if slo is None else ": held" if run.held else f": {'; '.join(broken)}"
        self._tell(run.sentence() + verdict)
        return run

    def long_enough(self, rate: float) -> Run:
        """A run with enough requests for the percentile of the SLO."""
        asked = self._settings.duration_s
        assert self._slo is not None
        return self(rate, min(max(asked, self._slo.samples / rate), asked * _MAX_STRETCH))


def _complain(reason: str, status: int) -> int:
    print(f"tidegate: {reason}", file=sys.stderr)
    return status
