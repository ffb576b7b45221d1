"""How the benchmark counts."""

import numpy as np
import pytest

from loadtest.bench.drivers import parts_within


def test_requests_that_take_long_are_counted_by_their_parts() -> None:
    # Four callers, of whom each asks again as soon as it is answered.
    started = np.concatenate([np.arange(offset, 20, 1.35) for offset in (0.0, 0.2, 0.5, 1.1)])
    parts = parts_within(started, np.full_like(started, 1.35), 2.0, 6.5)
    assert parts.sum() == pytest.approx(4 * 4.5 / 1.35)
    assert parts.min() == 0 and parts.max() == pytest.approx(1)
