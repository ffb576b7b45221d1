import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelMetadataResponse

from loadtest import pictures
from loadtest.errors import BadLoad
from loadtest.requests import make_requests
from loadtest.settings import Kind, LoadSettings, Tenant

_ONE, _OTHER = b"0000000000000001", b"0000000000000002"


def _metadata(datatype: str, shape: list[int], name: str = "m") -> ModelMetadataResponse:
    response = ModelMetadataResponse(name=name)
    response.inputs.add(name="images", datatype=datatype, shape=shape)
    return response


def _settings(kind: Kind, batch_size: int, distinct: int) -> tuple[LoadSettings, Tenant]:
    key = SecretStr("key")
    return LoadSettings(key=key, kind=kind, batch_size=batch_size, distinct=distinct), Tenant(
        name="t", key=key, priority=2
    )


def test_tensors_are_distinct_and_of_the_models_shape() -> None:
    requests = make_requests(_metadata("UINT8", [-1, 4, 6, 3]), *_settings(Kind.TENSORS, batch_size=2, distinct=6))
    assert len(requests) == 3
    parsed = [ModelInferRequest.FromString(request.body()) for request in requests]
    assert len({request.raw_input_contents[0] for request in parsed}) == 3
    assert list(parsed[0].inputs[0].shape) == [2, 4, 6, 3]
    assert len(parsed[0].raw_input_contents[0]) == 2 * 4 * 6 * 3


def test_a_mark_makes_equal_requests_differ_and_leaves_the_rest() -> None:
    (request,) = make_requests(_metadata("UINT8", [-1, 4, 4, 3]), *_settings(Kind.TENSORS, batch_size=1, distinct=1))
    one, other = (ModelInferRequest.FromString(request.body(mark)) for mark in (_ONE, _OTHER))
    assert one.parameters["load_mark"].string_param == _ONE.decode() != other.parameters["load_mark"].string_param
    assert one.parameters["priority"].int64_param == 2
    assert one.raw_input_contents == other.raw_input_contents


def test_files_travel_with_their_lengths() -> None:
    (request,) = make_requests(_metadata("BYTES", [-1, 1]), *_settings(Kind.ENCODED, batch_size=2, distinct=2))
    content = ModelInferRequest.FromString(request.body()).raw_input_contents[0]
    first = int.from_bytes(content[:4], "little")
    second = int.from_bytes(content[4 + first : 8 + first], "little")
    assert content[4:6] == content[8 + first : 10 + first] == b"\xff\xd8" and len(content) == 8 + first + second


def test_the_header_of_a_rest_request_is_as_long_as_it_says() -> None:
    (request,) = make_requests(_metadata("UINT8", [-1, 4, 4, 3]), *_settings(Kind.REST, batch_size=1, distinct=1))
    length = int(dict(request.headers)["Inference-Header-Content-Length"])
    body = request.body(_ONE)
    header = json.loads(body[:length])
    assert header["parameters"]["load_mark"] == _ONE.decode()
    assert len(body) - length == header["inputs"][0]["parameters"]["binary_data_size"] == 4 * 4 * 3


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [("FP32", [-1, 4, 4, 3]), ("BYTES", [-1, 1]), ("UINT8", [-1, -1, -1, 3]), ("UINT8", [-1, 4, 4, 1])],
)
def test_a_model_of_something_else_is_refused(datatype: str, shape: list[int]) -> None:
    with pytest.raises(BadLoad, match="'m'"):
        make_requests(_metadata(datatype, shape), *_settings(Kind.TENSORS, batch_size=1, distinct=1))


def test_given_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((5, 7, 3), 200, np.uint8)).save(path)
    assert pictures.files(path, 10) == [path.read_bytes()]
    (array,) = pictures.arrays(path.parent, 10, 4, 6)
    assert array.shape == (4, 6, 3) and array.min() == array.max() == 200


def test_photographs_are_real_and_always_the_same() -> None:
    first, again = pictures.arrays(None, 4, 32, 32), pictures.arrays(None, 4, 32, 32)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert min(array.std() for array in first) > 1


def test_a_directory_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLoad, match="--images"):
        pictures.files(tmp_path, 1)
