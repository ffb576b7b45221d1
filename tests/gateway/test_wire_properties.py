"""Whatever bytes come: the walker reads what the official parser reads, or refuses them."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

from gateway import wire
from gateway.errors import InvalidArgument

_EXAMPLES = settings(max_examples=1_300, derandomize=True, deadline=None, database=None)
_MESSAGES = 10_000
# Each change of an example is made at so many places, so that few examples are many messages.
_PLACES = 8

_text = st.sampled_from(["", "digits", "ü", "x" * 130, "a\0b"])
_parameter = st.sampled_from(
    [
        InferParameter(bool_param=True),
        InferParameter(int64_param=-1),
        InferParameter(string_param="y"),
        InferParameter(double_param=0.5),
        InferParameter(),
    ]
)
_parameters = st.dictionaries(_text, _parameter, max_size=2)
_tensor = st.builds(
    ModelInferRequest.InferInputTensor,
    name=_text,
    shape=st.lists(st.sampled_from([0, 1, 7, 300, -1, 2**63 - 1, -(2**63)]), max_size=2),
    parameters=_parameters,
)
_request = st.builds(
    ModelInferRequest,
    model_name=_text,
    model_version=_text,
    id=_text,
    parameters=_parameters,
    inputs=st.lists(_tensor, max_size=2),
    raw_input_contents=st.lists(st.sampled_from([b"", b"abc", bytes(300)]), max_size=1),
)
_response = st.builds(
    ModelStreamInferResponse,
    error_message=_text,
    infer_response=st.builds(ModelInferResponse, model_name=_text, id=_text, parameters=_parameters),
)


def _varint(value: int, length: int) -> bytes:
    """A base-128 number, with more bytes than it needs where so many are asked for."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < length:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _field(number: int, wire_type: int, content: bytes, more: int, widths: tuple[int, int]) -> bytes:
    """A field that is right, or wrong in one of the ways that a parser may overlook."""
    tag = _varint(number << 3 | wire_type, widths[0])
    return tag + (_varint(len(content) + more, widths[1]) + content if wire_type == 2 else content[:8])


_fields = st.builds(
    _field,
    number=st.sampled_from([3, 1, 2, 4, 5, 7, 0, 9, 15, 16, 1 << 28, (1 << 29) - 1, 1 << 29, 1 << 40]),
    wire_type=st.sampled_from([2, 2, 2, 2, 2, 2, 2, 0, 1, 3, 4, 5, 6, 7]),
    content=st.sampled_from(
        [b"", b"digits", "ü".encode(), b"\xff\xfe", b"\x0a\x01k", b"\x0a\x01k\x12\x02\x08\x01", b"\x18\x05", bytes(200)]
    ),
    more=st.sampled_from([0, 0, 0, 0, 1, 1 << 31, 1 << 63]),
    widths=st.tuples(st.sampled_from([0, 0, 0, 2, 5, 6, 10, 11]), st.sampled_from([0, 0, 0, 3, 5, 10, 11])),
)
# Where, as a share of the message; how many bytes are taken away there; and what is put in their place.
_changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([0, 0, 1, 2, 8]),
        st.one_of(_fields, st.binary(max_size=2), st.just(b"")),
    ),
    min_size=1,
    max_size=3,
)
_Changes = list[tuple[float, int, bytes]]


def _changed(message: Any, changes: _Changes) -> Iterator[bytes]:
    """The message with all changes, moved along it place by place."""
    good = message.SerializeToString()
    for turn in range(_PLACES):
        body = bytearray(good)
        for share, taken, put in changes:
            place = int((share + turn / _PLACES) % 1 * (len(body) + 1))
            body[place : place + taken] = put
        yield bytes(body)


def _same_request(body: bytes) -> str:
    """What became of it: read as the parser reads it, or refused by one of the two."""
    try:
        header = wire.read_header(body)
        images = wire.count_images(body, header)
    except InvalidArgument:
        return "refused"
    try:
        parsed = ModelInferRequest.FromString(body)
    except DecodeError:
        return "refused by Triton"
    assert (header.model, header.version, header.request_id) == (parsed.model_name, parsed.model_version, parsed.id)
    assert header.parameters == dict(parsed.parameters)
    shape = parsed.inputs[0].shape if parsed.inputs else []
    assert images == (max(1, shape[0]) if shape else 1)
    renamed = ModelInferRequest.FromString(wire.with_id(wire.without_id(body, header), "new"))
    parsed.id = "new"
    # Fields that neither knows may stand in another order.
    parsed.DiscardUnknownFields()
    renamed.DiscardUnknownFields()
    assert renamed == parsed
    return "read"


def _same_response(body: bytes) -> str:
    try:
        error, header = wire.read_stream_response(body)
    except InvalidArgument:
        return "refused"
    try:
        parsed = ModelStreamInferResponse.FromString(body)
    except DecodeError:
        return "refused by Triton"
    response = parsed.infer_response
    assert error == parsed.error_message
    assert (header.model, header.version) == (response.model_name, response.model_version)
    assert (header.request_id, header.parameters) == (response.id, dict(response.parameters))
    return "read"


@pytest.mark.parametrize(("messages", "check"), [(_request, _same_request), (_response, _same_response)])
def test_a_message_is_read_as_the_parser_reads_it_or_refused(
    messages: st.SearchStrategy[Any], check: Callable[[bytes], str]
) -> None:
    became = Counter[str]()

    @_EXAMPLES
    @given(messages, _changes)
    def examine(message: Any, changes: _Changes) -> None:
        assert check(message.SerializeToString()) == "read"
        became.update(check(body) for body in _changed(message, changes))

    examine()
    assert became.total() >= _MESSAGES
    # Neither of the two is the rule: messages are changed enough, and not too much.
    assert min(became["read"], became["refused"]) > _MESSAGES / 10
