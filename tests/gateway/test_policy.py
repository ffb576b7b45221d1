"""What a policy chooses, and what it may be."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.routing.policy import Choice, TrafficPolicy

_ROLLOUT = '{"aliases": {"stable": 1, "canary": 2}, "weights": {"stable": 90, "canary": 10}%s}'


def _choice(more: str = "") -> Choice:
    return Choice(TrafficPolicy.parse(_ROLLOUT % more), 1)


def test_calls_are_shared_by_weight() -> None:
    choice = _choice()
    counts = Counter(choice.version("key:a", None, None) for _ in range(4_000))
    # Of 4,000 at 10 %, ten standard deviations are 190.
    assert counts.keys() == {1, 2} and abs(counts[2] - 400) < 190


@pytest.mark.parametrize(("sticky", "subjects"), [("key", True), ("header", False)])
def test_a_sticky_caller_stays_at_its_version(sticky: str, subjects: bool) -> None:
    choice = _choice(f', "sticky": "{sticky}"')

    def version(number: int) -> int | None:
        return choice.version(f"key:{number}", None, None) if subjects else choice.version("key:a", str(number), None)

    versions = [version(number) for number in range(500)]
    assert versions == [version(number) for number in range(500)]
    assert 10 < versions.count(2) < 110


def test_without_the_header_nothing_keeps_a_caller() -> None:
    choice = _choice(', "sticky": "header"')
    assert {choice.version("key:a", None, None) for _ in range(300)} == {1, 2}


def test_a_sequence_stays_at_one_version() -> None:
    choice = _choice()
    assert len({choice.version("key:a", None, "digits 7") for _ in range(100)}) == 1


def test_a_pinned_key_has_its_version() -> None:
    choice = _choice(', "pins": {"abc": 3}')
    assert {choice.version("key:abc", None, None) for _ in range(20)} == {3}


def test_without_weights_stable_answers_and_without_that_the_policy_leaves_it_open() -> None:
    assert Choice(TrafficPolicy.parse('{"aliases": {"stable": 4}}'), 1).version("key:a", None, None) == 4
    assert Choice(TrafficPolicy(), 1).version("key:a", None, None) is None


def test_a_canary_at_0_is_not_watched_and_gets_nothing() -> None:
    back = Choice(_choice().policy.without_canary(), 1)
    assert (_choice().canary, back.canary) == (2, None)
    assert {back.version("key:a", None, None) for _ in range(200)} == {1}
    assert back.policy.weights == {"stable": 100, "canary": 0}


@given(st.dictionaries(st.integers(1, 9).map(str), st.floats(0, 1e6, allow_nan=False), min_size=1))
def test_only_what_has_a_weight_is_chosen(weights: dict[str, float]) -> None:
    if not any(weights.values()):
        with pytest.raises(ValueError, match="above 0"):
            TrafficPolicy(weights=weights)
        return
    choice = Choice(TrafficPolicy(weights=weights), 1)
    for number in range(20):
        version = choice.version("key:a", None, f"sequence {number}")
        assert version is not None and weights[str(version)] > 0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"weights": {"canary": 5}}', "'canary' is neither an alias nor a version"),
        ('{"weights": {"1": 0}}', "above 0"),
        ('{"weights": {"1": -1}}', "weights.1"),
        ('{"aliases": {"7": 1}}', "aliases.7"),
        ('{"aliases": {"stable": 0}}', "aliases.stable"),
        ('{"shadow": {"version": 1, "share": 2}}', "shadow.share"),
        ('{"colour": "red"}', "colour"),
        ("[", "policy"),
    ],
)
def test_what_is_wrong_with_a_policy_is_named(text: str, field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        TrafficPolicy.parse(text)
