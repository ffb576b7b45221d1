"""The generate extension: what becomes a tensor, what a parameter, and what an output looks like."""

from typing import Any

import numpy as np
import orjson
import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from contract.tensors import DataType, TensorSpec
from gateway.errors import InvalidArgument
from gateway.rest import generate
from gateway.routing.catalog import Model

_TEXT = TensorSpec("text", DataType.BYTES, (1,))
_NUMBERS = TensorSpec("numbers", DataType.INT32, (-1,))


def _model(*inputs: TensorSpec, batches: bool = False) -> Model:
    return Model("m", (1,), inputs, (), batches, cacheable=False, takes_timeout=False)


def test_inputs_are_tensors_and_the_rest_parameters() -> None:
    body = {"text": "hi", "id": "7", "parameters": {"numbers": [1, 2], "depth": 3}, "flag": True, "ratio": 0.5}
    message = generate.read_request(orjson.dumps(body), _model(_TEXT, _NUMBERS, batches=True), "1")
    assert (message.model_name, message.model_version, message.id) == ("m", "1", "7")
    shapes = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in message.inputs}
    assert shapes == {"text": ("BYTES", [1, 1]), "numbers": ("INT32", [1, 2])}
    assert list(message.raw_input_contents) == [b"\2\0\0\0hi", np.array([1, 2], np.int32).tobytes()]
    assert message.parameters["depth"].int64_param == 3
    assert message.parameters["flag"].bool_param is True
    assert message.parameters["ratio"].double_param == 0.5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([1], "must be a JSON object"),
        ({"parameters": 1}, "parameters: must be an object"),
        ({"text": ["a", "b"]}, "2 elements do not fill its shape"),
        ({"text": 1}, "must be a string"),
        ({"text": "a", "parameters": {"text": "b"}}, "text: given twice"),
        ({"other": {"a": 1}}, "other: neither an input"),
        ({"other": None}, "other: neither an input"),
    ],
)
def test_what_does_not_fit_is_named(body: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        generate.read_request(orjson.dumps(body), _model(_TEXT), "")


def test_a_shape_with_two_open_sizes_cannot_be_told() -> None:
    square = TensorSpec("square", DataType.FP32, (-1, -1))
    with pytest.raises(InvalidArgument, match="more than one size"):
        generate.read_request(b'{"square": [1]}', _model(square), "")


def test_one_element_stands_alone_and_more_in_a_list() -> None:
    message = ModelInferResponse(model_name="m", model_version="1", id="7")
    for name, values in {"one": [1.5], "two": [1, np.nan], "none": []}.items():
        message.outputs.add(name=name, datatype="FP32", shape=[1, len(values)])
        message.raw_output_contents.append(np.array(values, np.float32).tobytes())
    text = generate.write_response(message)
    assert text == b'{"model_name":"m","model_version":"1","id":"7","one":1.5,"two":[1.0,NaN],"none":[]}'
