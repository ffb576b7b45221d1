from typing import Any

import pytest
from pydantic import ValidationError

from contract.card import Card, Preprocessing
from contract.tensors import DataType


def _card(**fields: Any) -> Card:
    return Card(**{"name": "digits", "labels": ("a", "b"), "preprocessing": Preprocessing(height=4, width=6), **fields})


def test_the_tensors_follow_from_the_card() -> None:
    card = _card()
    assert (card.images.name, card.images.data_type, card.images.dims) == ("images", DataType.UINT8, (4, 6, 3))
    assert (card.scores.name, card.scores.data_type, card.scores.dims) == ("scores", DataType.FP32, (2,))
    assert (card.encoded_name, card.encoded.dims, card.error.dims) == ("digits_encoded", (1,), (1,))


def test_the_bounds_of_a_queue_in_a_card_of_before_are_passed_over() -> None:
    before = {"max_batch_size": 8, "max_queue_delay_us": 0, "max_queue_size": 1_024, "default_timeout_us": 30_000_000}
    assert _card(batching=before) == _card(batching={"max_batch_size": 8})


def test_a_card_goes_through_json_unchanged() -> None:
    assert Card.model_validate_json(_card().model_dump_json()) == _card()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "digits_encoded"}, "must not end in"),
        ({"name": "../digits"}, "name"),
        ({"name": ""}, "name"),
        ({"labels": ()}, "labels"),
        ({"labels": ("a\nb",)}, "labels"),
        ({"unknown": 1}, "unknown"),
        ({"batching": {"max_batch_size": 0}}, "max_batch_size"),
    ],
)
def test_a_card_that_cannot_be_served_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _card(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shorter_side": 5}, "shorter_side 5 is less than the 4×6"),
        ({"std": (1.0, 0.0, 1.0)}, "must be positive"),
        ({"height": 0}, "height"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Preprocessing(**{"height": 4, "width": 6, **fields})
