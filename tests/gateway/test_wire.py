"""The walker reads what the official parser reads, and refuses what it refuses."""

import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway import wire
from gateway.errors import InvalidArgument


def _request(request_id: str = "42") -> ModelInferRequest:
    request = ModelInferRequest(model_name="digits", model_version="3", id=request_id)
    request.parameters["priority"].int64_param = 1
    request.parameters["binary_data_output"].bool_param = True
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 300]).parameters["x"].string_param = "y"
    request.outputs.add(name="scores").parameters["classification"].int64_param = 3
    request.raw_input_contents.append(bytes(range(256)) + bytes(44))
    return request


def test_header_is_what_the_parser_reads() -> None:
    header = wire.read_header(_request().SerializeToString())
    assert (header.model, header.version, header.request_id) == ("digits", "3", "42")
    assert header.parameters["priority"].int64_param == 1
    assert header.parameters["binary_data_output"].bool_param is True


def test_last_of_a_repeated_scalar_counts() -> None:
    body = _request().SerializeToString() + ModelInferRequest(model_name="other", id="43").SerializeToString()
    header = wire.read_header(body)
    assert (header.model, header.request_id) == ("other", "43")
    assert len(header.id_spans) == 2


@pytest.mark.parametrize(
    ("shapes", "images"),
    [([], 1), ([[]], 1), ([[7, 32, 32, 3]], 7), ([[300, 1], [2]], 300), ([[0, 3]], 1), ([[-1, 3]], 1)],
)
def test_images_are_the_first_dimension_of_the_first_input(shapes: list[list[int]], images: int) -> None:
    request = ModelInferRequest(model_name="m", raw_input_contents=[b"x" * 50])
    for shape in shapes:
        request.inputs.add(name="images", datatype="UINT8", shape=shape).parameters["x"].string_param = "y"
    body = request.SerializeToString()
    assert wire.count_images(body, wire.read_header(body)) == images


def test_a_shape_that_is_not_packed_is_read_too() -> None:
    tensor = b"\x0a\x01x" + b"\x18\x05" + b"\x18\x02"
    body = b"\x2a" + bytes([len(tensor)]) + tensor
    assert list(ModelInferRequest.FromString(body).inputs[0].shape) == [5, 2]
    assert wire.count_images(body, wire.read_header(body)) == 5


@pytest.mark.parametrize("request_id", ["", "42", "x" * 1_000, "ü"])
def test_without_id_is_the_same_request_less_its_id(request_id: str) -> None:
    body = _request(request_id).SerializeToString()
    bare = wire.without_id(body, wire.read_header(body))
    assert ModelInferRequest.FromString(bare) == _request("")


@pytest.mark.parametrize("request_id", ["", "42", "x" * 1_000, "ü"])
def test_with_id_replaces_the_id_of_a_response(request_id: str) -> None:
    response = ModelInferResponse(model_name="digits", raw_output_contents=[b"abc"])
    reply = ModelInferResponse.FromString(wire.with_id(response.SerializeToString(), request_id))
    response.id = request_id
    assert reply == response


def test_the_timeout_is_tritons_parameter() -> None:
    request = ModelInferRequest.FromString(_request().SerializeToString() + wire.timeout_field(250_000))
    assert request.parameters["timeout"].int64_param == 250_000
    assert request.parameters["priority"].int64_param == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x0a", "within a number"),
        (b"\x0a\x05abc", "field 1 says 5 bytes, 3 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes"),
        (b"\x0a" + b"\xff" * 10, "longer than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x02\x00", "field number 0"),
        (b"\x09abc", "within a field"),
        (b"\x0a\x02\xff\xfe", "not what the protocol says"),
        (b"\x22\x02\x0a\x05", "not what the protocol says"),
    ],
)
def test_what_is_not_a_request_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        wire.read_header(body)


def _naming(field: str, parameter: str = "shared_memory_region", text: str = "") -> bytes:
    request = _request()
    getattr(request, field)[0].parameters[parameter].string_param = text or "any"
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("size", [0, 10_000])
@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_a_region_of_shared_memory_cannot_be_named(field: str, size: int) -> None:
    body = _naming(field) + ModelInferRequest(raw_input_contents=[bytes(size)]).SerializeToString()
    with pytest.raises(InvalidArgument, match="not reachable"):
        wire.refuse_regions(body)


@pytest.mark.parametrize(
    "body",
    [
        _request().SerializeToString(),
        _naming("inputs", "shared_memory_offset"),
        _naming("inputs", "own", "shared_memory_region"),
        _request("shared_memory_region").SerializeToString(),
        ModelInferRequest(raw_input_contents=[b"shared_memory_region"]).SerializeToString(),
        ModelInferRequest(raw_input_contents=[b"shared_memory_region" * 1_000]).SerializeToString(),
    ],
)
def test_what_only_looks_like_a_region_is_let_through(body: bytes) -> None:
    wire.refuse_regions(body)


def test_an_input_that_cannot_be_read_is_refused_where_it_may_name_a_region() -> None:
    with pytest.raises(InvalidArgument, match="not what the protocol says"):
        wire.refuse_regions(b"\x2a\x16\x0a\x7fshared_memory_region")
