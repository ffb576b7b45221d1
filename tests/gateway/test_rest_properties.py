"""Whatever bodies come over REST: tensors are what they say, to the byte, or are refused."""

import json
import re
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferResponse

from contract.tensors import DataType
from gateway.errors import InvalidArgument
from gateway.rest import json_tensors
from gateway.rest.inference import ResponseForm, read_request, write_response

_EXAMPLES = settings(max_examples=850, derandomize=True, deadline=None, database=None)
_BODIES = 10_000
# Each change of an example is made at so many places, so that few examples are many bodies.
_PLACES = 12
_OF_A_BODY = b'0123456789-.eN"[]{},:\\tn\xff\0\x80'
# What a member or an element may be in place of what it is; JSON has no other forms for these.
_ODD = [
    b"null", b"true", b"NaN", b"-Infinity", b"1e39", b"1e400", b"-1", b"0", b"1.5", b"9223372036854775808",
    b"18446744073709551616", b"1" + b"0" * 400, b"1" + b"0" * 5_000, b'"\\ud800"', b'"a"', b"[]", b"{}", b"[[[1]]]",
]  # fmt: skip

_VALUE = re.compile(rb'"[^"]*"|-?[\d.]+|true|false|NaN')

Tensor = tuple[dict[str, Any], bytes]


def _elements(kind: DataType) -> st.SearchStrategy[Any]:
    if kind is DataType.BYTES:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    if kind is DataType.BOOL:
        return st.booleans()
    dtype = kind.numpy
    assert dtype is not None
    if dtype.kind == "f":
        return st.floats(width=32, allow_nan=False) | st.just(float("nan"))
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def _tensors(draw: st.DrawFn) -> Tensor:
    """An input as JSON, and the bytes that numpy makes of the same elements."""
    kind = draw(st.sampled_from([kind for kind in DataType if kind not in (DataType.FP16, DataType.BF16)]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = json_tensors.element_count(shape)
    elements = draw(st.lists(_elements(kind), min_size=count, max_size=count))
    if kind is DataType.BYTES:
        raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in elements)
    else:
        raw = np.array(elements, kind.numpy).tobytes()
    nested = np.array(elements, object).reshape(shape).tolist() if shape else elements
    return {"datatype": kind.value, "shape": shape, "data": nested}, raw


def _body(tensors: list[tuple[Tensor, bool]]) -> tuple[bytes, bytes]:
    """The JSON of a request, and the binary tensors behind it, for those that are marked as such."""
    inputs, tail = [], b""
    for number, ((tensor, raw), binary) in enumerate(tensors):
        entry: dict[str, Any] = {"name": f"t{number}", **tensor}
        if binary:
            del entry["data"]
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        inputs.append(entry)
    outputs = [{"name": "y", "parameters": {"binary_data": True, "classification": 3}}]
    return json.dumps({"id": "7", "inputs": inputs, "outputs": outputs}).encode(), tail


_requests = st.lists(st.tuples(_tensors(), st.booleans()), min_size=1, max_size=3)


@_EXAMPLES
@given(_requests)
def test_tensors_in_json_and_behind_it_are_the_same_bytes_and_come_back(tensors: list[tuple[Tensor, bool]]) -> None:
    header, tail = _body(tensors)
    message, _ = read_request(header + tail, len(header), "m", "")
    assert list(message.raw_input_contents) == [raw for (_, raw), _ in tensors]
    answer = ModelInferResponse(model_name="m", raw_output_contents=message.raw_input_contents)
    for tensor in message.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    form = ResponseForm(False, {f"t{number}": binary for number, (_, binary) in enumerate(tensors)})
    written, header_length = write_response(answer, form)
    outputs = json.loads(written[:header_length])["outputs"]
    position = len(written) if header_length is None else header_length
    for output, (_, raw) in zip(outputs, [tensor for tensor, _ in tensors], strict=True):
        if "data" in output:
            assert json_tensors.to_raw("t", DataType(output["datatype"]), output["shape"], output["data"]) == raw
        else:
            size = output["parameters"]["binary_data_size"]
            assert written[position : position + size] == raw
            position += size
    assert position == len(written)


def test_a_changed_body_is_read_whole_or_refused() -> None:
    """No byte behind the JSON is lost, used twice, or read past the end; nothing but a refusal is raised."""
    became = Counter[str]()

    @_EXAMPLES
    @given(
        tensors=_requests,
        place=st.floats(0, 1, exclude_max=True),
        put=st.lists(st.sampled_from(_OF_A_BODY), max_size=2).map(bytes) | st.sampled_from(_ODD),
        taken=st.integers(0, 2),
        lengths=st.tuples(st.sampled_from([0, 0, 0, 0, -1, 1, 10**9, -(10**9)]), st.sampled_from([0, 0, 0, 0, -1, 1])),
    )
    def examine(
        tensors: list[tuple[Tensor, bool]], place: float, put: bytes, taken: int, lengths: tuple[int, int]
    ) -> None:
        good, tail = _body(tensors)
        tail = tail[: len(tail) + lengths[1]] if lengths[1] < 0 else tail + bytes(lengths[1])
        for turn in range(_PLACES):
            # Where a number is none, another parser of JSON takes over.
            text = good.replace(b"{", b'{"other":NaN,', 1) if turn % 2 else good
            header = _changed(text, (place + turn / _PLACES) % 1, taken, put)
            became[_read_whole(header, tail, len(header) + lengths[0])] += 1

    examine()
    assert became.total() >= _BODIES
    assert min(became["read"], became["refused"]) > _BODIES / 50


def _changed(body: bytes, place: float, taken: int, put: bytes) -> bytes:
    """Some bytes in place of others; what is a value of JSON in place of another value."""
    if put in _ODD:
        values = list(_VALUE.finditer(body))
        start, stop = values[int(place * len(values))].span()
    else:
        start = int(place * len(body))
        stop = start + taken
    return body[:start] + put + body[stop:]


def _read_whole(header: bytes, tail: bytes, header_length: int) -> str:
    try:
        message, _ = read_request(header + tail, header_length, "m", "")
    except InvalidArgument:
        return "refused"
    assert len(message.raw_input_contents) == len(message.inputs)
    behind = json.loads((header + tail)[:header_length])["inputs"]
    binary = [
        raw
        for tensor, raw in zip(behind, message.raw_input_contents, strict=True)
        if "binary_data_size" in tensor.get("parameters", {})
    ]
    assert b"".join(binary) == (header + tail)[header_length:]
    return "read"


@_EXAMPLES
@given(st.binary(max_size=24) | st.lists(st.binary(max_size=5), max_size=4).map(json_tensors.join_bytes))
def test_text_tensors_are_taken_apart_without_a_byte_lost_or_refused(raw: bytes) -> None:
    try:
        elements = json_tensors.split_bytes(raw)
    except InvalidArgument:
        return
    assert json_tensors.join_bytes(elements) == raw
