import json
import math
from collections import Counter

import pytest

from loadtest.errors import BadLoad
from loadtest.histogram import bucket, mean, middle, quantile
from loadtest.measured import OK, UNSENT, Measured
from loadtest.slo import Slo


def _measured(latencies_s: list[float], failed: int = 0) -> Measured:
    run = Measured(10, 10)
    for number, latency in enumerate(latencies_s):
        due = number / 10
        run.record("a", OK, due, due, due + latency, 1)
    for _ in range(failed):
        run.record("a", UNSENT, 0, 0, 0, 0)
    return run


@pytest.mark.parametrize("seconds", [1e-5, 0.00123, 0.05, 0.999, 7, 1_000])
def test_a_bucket_is_within_half_a_percent(seconds: float) -> None:
    assert middle(bucket(seconds)) == pytest.approx(seconds, rel=0.0051)


def test_quantiles_are_those_of_the_sorted_latencies() -> None:
    counts = Counter(bucket(number / 1_000) for number in range(1, 101))
    assert quantile(counts, 0.5) == pytest.approx(0.050, rel=0.01)
    assert quantile(counts, 0.99) == pytest.approx(0.099, rel=0.01)
    assert mean(counts) == pytest.approx(0.0505, rel=0.01)
    assert quantile(counts, 0.99, beyond=10) == math.inf
    assert math.isnan(quantile({}, 0.5))


def test_latency_is_counted_from_the_intended_start() -> None:
    run = Measured(1, 1)
    run.record("a", OK, 1.0, 3.0, 3.5, 4)
    assert run.quantile(0.5) == pytest.approx(2.5, rel=0.01)
    assert quantile(run.service, 0.5) == pytest.approx(0.5, rel=0.01)
    assert quantile(run.late, 0.5) == pytest.approx(2.0, rel=0.01)
    assert run.images == 4 and [second.number for second in run.seconds()] == [1]


def test_processes_add_up_over_locusts_wire() -> None:
    parts = [_measured([0.01] * 5), _measured([0.03] * 5, failed=2)]
    run = Measured.of_messages(json.loads(json.dumps([part.to_message() for part in parts])))
    assert run.outcomes == {OK: 10, UNSENT: 2}
    assert run.quantile(0.5) == pytest.approx(0.01, rel=0.01) and run.quantile(0.9) == pytest.approx(0.03, rel=0.01)
    assert sum(second.failed for second in run.seconds()) == 2


def test_what_has_no_good_answer_is_slower_than_any_bound() -> None:
    slo = Slo.parse("p90=50ms, errors=20%")
    assert slo.broken(_measured([0.01] * 95, failed=5)) == []
    broken = slo.broken(_measured([0.01] * 85, failed=15))
    assert broken == ["p90 is more than was waited for, over 50 ms"]
    assert not slo.close(_measured([0.01] * 85, failed=15))


def test_an_slo_names_what_was_broken() -> None:
    slo = Slo.parse("p50=5ms,p99=0.05s")
    assert (slo.bounds, slo.errors, slo.samples) == ({0.5: 0.005, 0.99: 0.05}, 0.001, 1_000)
    assert slo.broken(_measured([0.004] * 98 + [0.06] * 2)) == ["p99 is 59.8 ms, over 50 ms"]
    assert slo.close(_measured([0.004] * 98 + [0.06] * 2))
    assert any("no good answer" in reason for reason in slo.broken(_measured([0.004] * 999, failed=2)))
    assert len(slo.broken(Measured(1, 1))) == 3


@pytest.mark.parametrize("text", ["p99", "p99=50", "errors=1%", "p0=1ms", "p100=1ms", "p99=50ms;errors=1%", ""])
def test_another_slo_is_refused(text: str) -> None:
    with pytest.raises(BadLoad, match="--slo"):
        Slo.parse(text)
