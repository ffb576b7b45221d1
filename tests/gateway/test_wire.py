"""The walker reads what the official parser reads, and refuses what it refuses."""

import random

import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse

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


def test_with_timeout_adds_tritons_parameter() -> None:
    request = ModelInferRequest.FromString(wire.with_timeout(_request().SerializeToString(), 250_000))
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


def _varint(value: int, length: int = 0) -> bytes:
    """A base-128 number, with as many bytes as asked for where it needs fewer."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < length:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _field(choices: random.Random) -> bytes:
    """A field that is right, or wrong in one of the ways that a parser may overlook."""
    number = choices.choice([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 9, 15, 16, 1 << 28, (1 << 29) - 1, 1 << 29, 1 << 40])
    wire_type = choices.choice([2] * 12 + [0, 1, 3, 4, 5, 6, 7])
    content = choices.choice(
        [b"", b"digits", "ü".encode(), b"\xff\xfe", b"\x0a\x01k", b"\x0a\x01k\x12\x02\x08\x01", bytes(200)]
    )
    tag = _varint(number << 3 | wire_type, choices.choice([0] * 9 + [2, 5, 6, 10, 11]))
    length = _varint(
        len(content) + choices.choice([0] * 9 + [1, 1 << 31, 1 << 63]), choices.choice([0] * 6 + [3, 5, 10, 11])
    )
    return tag + (length + content if wire_type == 2 else content[:8])


def _mutated(choices: random.Random, good: bytes) -> bytes:
    body = bytearray(good)
    for _ in range(choices.randint(1, 2)):
        place = choices.randrange(len(body) + 1)
        match choices.randrange(5):
            case 0:
                body[place : place + 1] = bytes([choices.randrange(256)])
            case 1:
                del body[place : place + choices.randint(1, 8)]
            case 2:
                body[place:place] = _field(choices)
            case 3:
                body = bytearray(_field(choices) + body)
            case 4:
                body += _field(choices)
    return bytes(body)


def test_mutated_messages_read_alike_or_are_refused() -> None:
    """Where the walker accepts what the parser accepts, the fields are equal, and so are the rewritten messages."""
    choices = random.Random(0)
    good = _request().SerializeToString()
    agreed = refused = 0
    for _ in range(20_000):
        body = _mutated(choices, good)
        try:
            header = wire.read_header(body)
            images = wire.count_images(body, header)
        except InvalidArgument:
            refused += 1
            continue
        try:
            parsed = ModelInferRequest.FromString(body)
        except DecodeError:
            continue  # Triton refuses it.
        assert (header.model, header.version, header.request_id) == (parsed.model_name, parsed.model_version, parsed.id)
        assert header.parameters == dict(parsed.parameters)
        renamed = ModelInferRequest.FromString(wire.with_id(wire.without_id(body, header), "new"))
        parsed.id = "new"
        # Fields that neither knows may stand in another order.
        parsed.DiscardUnknownFields()
        renamed.DiscardUnknownFields()
        assert renamed == parsed
        shape = parsed.inputs[0].shape if parsed.inputs else []
        assert images == (max(1, shape[0]) if shape else 1)
        agreed += 1
    assert agreed > 2_000 and refused > 2_000


def test_mutated_stream_responses_read_alike_or_are_refused() -> None:
    choices = random.Random(0)
    response = ModelInferResponse(model_name="digits", model_version="1", id="7", raw_output_contents=[b"abc"])
    response.parameters["triton_final_response"].bool_param = True
    message = ModelStreamInferResponse(error_message="no", infer_response=response)
    good, agreed = message.SerializeToString(), 0
    for body in [good, *(_mutated(choices, good) for _ in range(5_000))]:
        try:
            error, header = wire.read_stream_response(body)
            parsed = ModelStreamInferResponse.FromString(body)
        except (InvalidArgument, DecodeError):
            continue
        assert error == parsed.error_message
        assert header.request_id == parsed.infer_response.id
        agreed += 1
    assert agreed > 500
