from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.budget import RetryBudget


def test_a_share_of_the_requests_and_a_few_at_least() -> None:
    budget = RetryBudget(0.2, 3)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    for _ in range(50):
        budget.asked(100.5)
    assert [budget.spend(100.9) for _ in range(8)] == [True] * 7 + [False]


def test_what_is_older_than_ten_seconds_counts_no_more() -> None:
    budget = RetryBudget(0.2, 3)
    for _ in range(100):
        budget.asked(100.0)
    assert all(budget.spend(105.0) for _ in range(20))
    assert not budget.spend(105.0)
    assert budget.spend(116.0)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_no_more_is_spent_than_a_fifth_of_what_was_asked(steps: list[tuple[float, int, int]]) -> None:
    budget, now, asked, spent = RetryBudget(0.2, 0), 1_000.0, 0, 0
    for passed, requests, retries in steps:
        now += passed
        for _ in range(requests):
            budget.asked(now)
        asked += requests
        spent += sum(budget.spend(now) for _ in range(retries))
        # Requests that are forgotten with what was spent on them leave both sums as they are.
        assert spent <= 0.2 * asked + 1e-9
