"""JSON as Triton has it: NaN, Infinity and -Infinity are numbers."""

import json
from typing import Any

import orjson
from pydantic import BeforeValidator

from gateway.errors import InvalidArgument


def _is_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")
    return value


# Without text and booleans, which pydantic would take too; 2.0 is a whole number, as JSON Schema has it.
WHOLE = BeforeValidator(_is_number)


def parse(text: bytes) -> Any:
    """The value of a text.

    Raises:
        InvalidArgument: It is not JSON, or is nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in text and b"Infinity" not in text:
            raise InvalidArgument(f"the body is not JSON: {error}") from error
    try:
        value = json.loads(text)
        # json takes what no message holds: half a surrogate pair, and integers of any length. orjson writes neither.
        orjson.dumps(value)
        return value
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from error


def dump(value: Any) -> bytes:
    """The text of a value."""
    text = orjson.dumps(value)
    # orjson writes null for what is no finite number; it is many times faster where there is none.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() if b"null" in text else text
