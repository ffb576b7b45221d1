from typing import Any

import numpy as np
import orjson
import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from contract.tensors import DataType, TensorSpec
from gateway.errors import InvalidArgument
from gateway.rest import json_tensors
from gateway.rest.inference import ResponseForm, read_raw_request, read_request, write_response
from gateway.routing.catalog import Model

_NUMERIC = [t for t in DataType if t not in (DataType.BYTES, DataType.FP16, DataType.BF16, DataType.BOOL)]


@pytest.mark.parametrize("data_type", _NUMERIC)
def test_numbers_go_both_ways(data_type: DataType) -> None:
    dtype = data_type.numpy
    assert dtype is not None
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    values = [dtype.type(limits.min).item(), 0, dtype.type(limits.max).item()]
    raw = json_tensors.to_raw("x", data_type, [3], values)
    assert raw == np.array(values, dtype).tobytes()
    assert json_tensors.from_raw("x", data_type, raw) == values


def test_booleans_strings_and_nesting() -> None:
    assert json_tensors.to_raw("x", DataType.BOOL, [2], [True, False]) == b"\1\0"
    raw = json_tensors.to_raw("x", DataType.BYTES, [2, 1], [["ü"], [""]])
    assert raw == b"\2\0\0\0\xc3\xbc\0\0\0\0"
    assert json_tensors.from_raw("x", DataType.BYTES, raw) == ["ü", ""]
    assert json_tensors.to_raw("x", DataType.UINT8, [2, 1, 2], [[[1, 2]], [[3, 4]]]) == b"\1\2\3\4"
    assert json_tensors.to_raw("x", DataType.UINT8, [0], []) == b""


@pytest.mark.parametrize(
    ("data_type", "shape", "data", "words"),
    [
        (DataType.UINT8, [1], [256], "256 is not in UINT8's 0..255"),
        (DataType.UINT8, [1], [-1], "-1"),
        (DataType.UINT8, [1], [1.5], "1.5 is not of type UINT8"),
        (DataType.UINT8, [1], [True], "True"),
        (DataType.BOOL, [1], [1], "1 is not of type BOOL"),
        (DataType.FP32, [1], ["1"], "'1'"),
        (DataType.FP32, [1], [None], "None"),
        (DataType.BYTES, [1], [1], "must be a string"),
        (DataType.FP16, [1], [1.0], "binary"),
        (DataType.UINT8, [2], [1], "1 elements, shape \\[2\\] has 2"),
        (DataType.UINT8, [1], None, "must be a list"),
        (DataType.UINT8, [1], "abc", "must be a list"),
    ],
)
def test_what_does_not_fit_is_named(data_type: DataType, shape: list[int], data: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        json_tensors.to_raw("x", data_type, shape, data)


@pytest.mark.parametrize("raw", [b"\1", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0\5\0\0\0abc"])
def test_a_bytes_tensor_with_lying_lengths_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        json_tensors.split_bytes(raw)


def _header(**fields: Any) -> bytes:
    tensor = {"name": "x", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}
    return orjson.dumps({"id": "7", "inputs": [tensor], **fields})


def test_binary_tensors_stand_behind_the_json() -> None:
    header = _header(
        parameters={"priority": 2, "ratio": 0.5, "flag": True, "tag": "a"},
        outputs=[{"name": "y", "parameters": {"binary_data": True, "classification": 3}}],
    )
    message, form = read_request(header + b"\1\2", len(header), "digits", "1")
    assert (message.model_name, message.model_version, message.id) == ("digits", "1", "7")
    assert list(message.raw_input_contents) == [b"\1\2"]
    assert message.parameters["priority"].int64_param == 2
    assert message.parameters["ratio"].double_param == 0.5
    assert message.parameters["flag"].bool_param is True
    assert message.parameters["tag"].string_param == "a"
    assert message.outputs[0].parameters["classification"].int64_param == 3
    assert "binary_data" not in message.outputs[0].parameters
    assert form.is_binary("y") and not form.is_binary("z")


@pytest.mark.parametrize(
    ("body", "header_length", "words"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "body"),
        (b"{}", None, "inputs"),
        (b'{"inputs": [{"name": "x", "datatype": "UINT9", "shape": [1]}]}', None, "inputs.0.datatype"),
        (b'{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1]}]}', None, "inputs.0.shape.0"),
        (_header(), None, "binary_data_size is 2, 0 bytes are left"),
        (_header() + b"\1", len(_header()), "binary_data_size is 2, 1 bytes are left"),
        (_header() + b"\1\2\3", len(_header()), "1 bytes are left over"),
        (b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[9223372036854775808,0],"data":[]}]}', None, "shape.0"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1e39]}]}', None, "the largest number of FP32"),
        (b'{"inputs":[],"id":"\\ud800","parameters":{"a":NaN}}', None, "surrogates"),
        (b'{"inputs":[],"parameters":{"a":NaN,"b":1' + b"0" * 400 + b"}}", None, "64-bit"),
        (_header(), 10_000, "Inference-Header-Content-Length is 10000"),
        (_header(), 0, "Inference-Header-Content-Length is 0"),
    ],
)
def test_a_body_that_is_not_a_request_is_refused(body: bytes, header_length: int | None, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        read_request(body, header_length, "digits", "")


def test_a_parameter_has_the_type_that_holds_it() -> None:
    message, _ = read_request(b'{"inputs":[],"parameters":{"a":18446744073709551615,"b":-1}}', None, "digits", "")
    assert (message.parameters["a"].uint64_param, message.parameters["b"].int64_param) == (2**64 - 1, -1)


def test_outputs_travel_in_the_form_asked_for() -> None:
    message = ModelInferResponse(model_name="digits", model_version="1", id="7")
    for name in ("a", "b"):
        message.outputs.add(name=name, datatype="FP32", shape=[1, 2])
        message.raw_output_contents.append(np.array([1.5, 2], np.float32).tobytes())
    body, length = write_response(message, ResponseForm(binary_by_default=False, binary={"b": True}))
    assert length is not None
    assert body[length:] == message.raw_output_contents[1]
    header = orjson.loads(body[:length])
    assert header == {
        "model_name": "digits",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
            {"name": "b", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
    }
    whole, length = write_response(message, ResponseForm(binary_by_default=False, binary={}))
    assert length is None and orjson.loads(whole)["outputs"][1]["data"] == [1.5, 2.0]


def _model(*inputs: TensorSpec, batches: bool) -> Model:
    return Model("m", (1,), inputs, (), batches, cacheable=False, takes_timeout=False)


@pytest.mark.parametrize(
    ("data_type", "dims", "batches", "body", "shape", "raw"),
    [
        (DataType.FP32, (2,), False, bytes(8), [2], bytes(8)),
        (DataType.FP32, (2,), True, bytes(8), [1, 2], bytes(8)),
        (DataType.FP32, (-1, 2), True, bytes(24), [1, 3, 2], bytes(24)),
        (DataType.BF16, (-1,), False, bytes(6), [3], bytes(6)),
        (DataType.FP32, (-1, 2), True, b"", [1, 0, 2], b""),
        (DataType.BYTES, (1,), True, b"jpeg", [1, 1], b"\4\0\0\0jpeg"),
        (DataType.BYTES, (-1,), False, b"", [1], b"\0\0\0\0"),
    ],
)
def test_a_raw_request_is_the_one_inputs_data(
    data_type: DataType, dims: tuple[int, ...], batches: bool, body: bytes, shape: list[int], raw: bytes
) -> None:
    message, form = read_raw_request(body, _model(TensorSpec("x", data_type, dims), batches=batches), "2")
    assert (message.model_name, message.model_version) == ("m", "2")
    (tensor,) = message.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", data_type, shape)
    assert list(message.raw_input_contents) == [raw]
    assert form.is_binary("anything")


@pytest.mark.parametrize(
    ("inputs", "body", "words"),
    [
        ([TensorSpec("x", DataType.FP32, (2,))] * 2, bytes(8), "has 2 inputs"),
        ([TensorSpec("x", DataType.FP32, (2,))], bytes(7), "7 bytes are no whole number of FP32"),
        ([TensorSpec("x", DataType.FP32, (2,))], bytes(12), "3 elements do not fill its shape \\[2\\]"),
        ([TensorSpec("x", DataType.FP32, (-1, 2))], bytes(12), "3 elements do not fill"),
        ([TensorSpec("x", DataType.FP32, (-1, -1))], bytes(12), "more than one size"),
        ([TensorSpec("x", DataType.BYTES, (2,))], b"jpeg", "1 elements do not fill"),
    ],
)
def test_a_raw_request_whose_shape_cannot_be_told_is_refused(inputs: list[TensorSpec], body: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        read_raw_request(body, _model(*inputs, batches=False), "")


def test_what_is_no_finite_number_is_written_as_triton_writes_it() -> None:
    numbers = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[4],"data":[NaN,Infinity,-Infinity,1.5]}]}'
    message, form = read_request(numbers, None, "digits", "")
    values = np.frombuffer(message.raw_input_contents[0], np.float32)
    np.testing.assert_array_equal(values, np.array([np.nan, np.inf, -np.inf, 1.5], np.float32))
    response = ModelInferResponse(raw_output_contents=message.raw_input_contents)
    response.outputs.add(name="y", datatype="FP32", shape=[4])
    assert b'"data":[NaN,Infinity,-Infinity,1.5]' in write_response(response, form)[0]


@pytest.mark.parametrize("text", [b'{"a":[' + b"[" * 10_000 + b"]" * 10_000 + b",NaN]}", b"[" * 10_000, b"[NaN"])
def test_json_that_cannot_be_read_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not JSON"):
        read_request(text, None, "digits", "")
