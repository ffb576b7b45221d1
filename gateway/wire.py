"""Reading a serialized ModelInferRequest without parsing its tensors.

Protocol Buffers' encoding lets fields be walked by tag and length, skipped without a copy, and a field appended at the
end replaces an earlier one of the same number. So model, version, id and parameters are read, and an id is taken out or
put on, while the tensors stay the bytes they came as.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import InferParameter, ModelInferRequest

from gateway.errors import InvalidArgument

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MODEL_NAME, _MODEL_VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW_CONTENTS = 1, 2, 3, 4, 5, 6, 7
_SHAPE = 3
_ERROR_MESSAGE, _INFER_RESPONSE = 1, 2
_MAX_FIELD_NUMBER = (1 << 29) - 1
_ID_TAG = bytes([_ID << 3 | _LENGTH])
_VERSION_TAG = bytes([_MODEL_VERSION << 3 | _LENGTH])
_INPUT_TAG = bytes([_INPUTS << 3 | _LENGTH])
_REGION, _REGION_SIZE, _REGION_OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_REGION_KEY = _REGION.encode()
# A message up to this size is searched in less time than its fields are walked in.
_SEARCHED_BYTES = 4_096
_TENSORS = {_INPUTS: ModelInferRequest.InferInputTensor, _OUTPUTS: ModelInferRequest.InferRequestedOutputTensor}
# An input without its elements is smaller.
_MAX_DESCRIPTION = 16_384
_SIZES = (
    {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2}
    | dict.fromkeys(("UINT32", "INT32", "FP32"), 4)
    | dict.fromkeys(("UINT64", "INT64", "FP64"), 8)
)

# Put before the version of a stream's request. Triton gives the number of the version in a response of the model, and
# repeats the request's own text in one that says only that there are no more: so the two are told apart.
REPEATED = "0"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
# What is appended to the request of a stream, so that Triton says when its last response was given.
EMPTY_FINAL_RESPONSE_FIELD: bytes = ModelInferRequest(
    parameters={EMPTY_FINAL_RESPONSE: InferParameter(bool_param=True)}
).SerializeToString()


@dataclass(frozen=True, slots=True)
class InferHeader:
    """The fields of a ModelInferRequest or ModelInferResponse that are not tensors.

    Attributes:
        version: As asked for; empty where the caller leaves it to the server.
        request_id: The caller's own, empty where there is none.
        id_spans: Where the id's fields lie in the message, from and to.
        first_input: Where the first input lies, from and to; None where there is none.
    """

    model: str
    version: str
    request_id: str
    parameters: dict[str, InferParameter]
    id_spans: tuple[tuple[int, int], ...]
    first_input: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class TensorSpans:
    """Where the inputs of a ModelInferRequest lie in its bytes, from and to.

    Attributes:
        inputs: Their descriptions.
        contents: The raw bytes of each, in the same order.
        fields: The whole fields of both, in the order of the message.
    """

    inputs: tuple[tuple[int, int], ...]
    contents: tuple[tuple[int, int], ...]
    fields: tuple[tuple[int, int], ...]


def read_header(body: bytes) -> InferHeader:
    """Walk the fields of a serialized ModelInferRequest, or of a ModelInferResponse: these have the same numbers.

    Raises:
        InvalidArgument: The bytes are not one: a truncated field, an unknown wire type, text that is not UTF-8.
    """
    texts = {_MODEL_NAME: b"", _MODEL_VERSION: b"", _ID: b""}
    parameters: list[bytes] = []
    id_spans: list[tuple[int, int]] = []
    first_input: tuple[int, int] | None = None
    for number, start, content, stop in _fields(body):
        if number in texts:
            texts[number] = body[content:stop]
            if number == _ID:
                id_spans.append((start, stop))
        elif number == _PARAMETERS:
            parameters.append(body[start:stop])
        elif number == _INPUTS and first_input is None:
            first_input = (content, stop)
    try:
        model, version, request_id = (value.decode() for value in texts.values())
        parsed = ModelInferRequest.FromString(b"".join(parameters)).parameters if parameters else {}
    except (UnicodeDecodeError, DecodeError) as error:
        raise InvalidArgument("model_name, model_version, id or parameters is not what the protocol says") from error
    return InferHeader(model, version, request_id, dict(parsed), tuple(id_spans), first_input)


def refuse_regions(body: bytes) -> None:
    """Regions of shared memory are the server's own: what is in them, or would be written to them, is no caller's.

    Raises:
        InvalidArgument: An input or output of a ModelInferRequest names one, or is not what the protocol says.
    """
    if len(body) <= _SEARCHED_BYTES and _REGION_KEY not in body:
        return
    for number, _, content, stop in _fields(body):
        # The key is found in every encoding that has it; text and tensors may hold the same bytes.
        if number in _TENSORS and body.find(_REGION_KEY, content, stop) >= 0:
            try:
                tensor = _TENSORS[number].FromString(body[content:stop])
            except DecodeError as error:
                raise InvalidArgument("an input or output is not what the protocol says") from error
            if _REGION in tensor.parameters:
                raise InvalidArgument("shared memory is not reachable through this server")


def count_images(body: bytes, header: InferHeader) -> int:
    """The first dimension of the first input's shape, which is how many images a batch has; 1 where it has none.

    Raises:
        InvalidArgument: The input is not one.
    """
    if header.first_input is None:
        return 1
    position, end = header.first_input
    while position < end:
        tag, position = _varint(body, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _LENGTH:
            length, position = _varint(body, position, end)
            if number == _SHAPE and length:
                return _dimension(_varint(body, position, end)[0])
            position += length
        elif wire_type == _VARINT:
            value, position = _varint(body, position, end)
            if number == _SHAPE:
                return _dimension(value)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise InvalidArgument(f"field {number} of an input has wire type {wire_type}, which no tensor uses")
    return 1


def _dimension(value: int) -> int:
    """A dimension as a count, at least 1; a negative one, which Triton refuses, is 1 too."""
    return 1 if value >> 63 else max(1, value)


def find_tensors(body: bytes) -> TensorSpans | None:
    """The inputs of a request; None where one of them is not as many raw bytes as its shape and type say.

    Raises:
        InvalidArgument: The bytes are not a request.
    """
    inputs: list[tuple[int, int]] = []
    contents: list[tuple[int, int]] = []
    fields: list[tuple[int, int]] = []
    for number, start, content, stop in _fields(body):
        if number in (_INPUTS, _RAW_CONTENTS):
            (inputs if number == _INPUTS else contents).append((content, stop))
            fields.append((start, stop))
    if len(inputs) != len(contents) or not inputs:
        return None
    for (start, stop), (first, last) in zip(inputs, contents, strict=True):
        if last == first or stop - start > _MAX_DESCRIPTION or last - first != _size_of(body[start:stop]):
            return None
    return TensorSpans(tuple(inputs), tuple(contents), tuple(fields))


def _size_of(description: bytes) -> int | None:
    """Bytes of a tensor by its shape and type; None where these do not say, or its elements are typed."""
    try:
        tensor = ModelInferRequest.InferInputTensor.FromString(description)
    except DecodeError:
        return None
    size = _SIZES.get(tensor.datatype)
    if size is None or tensor.HasField("contents") or any(dimension < 0 for dimension in tensor.shape):
        return None
    return int(math.prod(tensor.shape)) * size


def by_region(body: bytes, tensors: TensorSpans, region: str, places: Sequence[int]) -> bytes:
    """The request whose inputs lie in a region of shared memory.

    Args:
        places: Where each begins there.
    """
    parts, position = [], 0
    for start, stop in tensors.fields:
        parts.append(body[position:start])
        position = stop
    parts.append(body[position:])
    for (start, stop), (first, last), place in zip(tensors.inputs, tensors.contents, places, strict=True):
        added = ModelInferRequest.InferInputTensor()
        added.parameters[_REGION].string_param = region
        added.parameters[_REGION_SIZE].int64_param = last - first
        if place:
            added.parameters[_REGION_OFFSET].int64_param = place
        encoded = added.SerializeToString()
        parts += (_INPUT_TAG, _encode_varint(stop - start + len(encoded)), body[start:stop], encoded)
    return b"".join(parts)


def without_id(body: bytes, header: InferHeader) -> bytes:
    """The message less its id, so that two requests that ask the same are equal."""
    if not header.id_spans:
        return body
    kept, position = [], 0
    for start, stop in header.id_spans:
        kept.append(body[position:start])
        position = stop
    kept.append(body[position:])
    return b"".join(kept)


def with_id(message: bytes, request_id: str) -> bytes:
    """A request or response with this id in place of its own: field 3 is the id in both."""
    if not request_id:
        return message
    encoded = request_id.encode()
    return b"".join((message, _ID_TAG, _encode_varint(len(encoded)), encoded))


def version_field(version: str) -> bytes:
    """What is appended to a request so that it is to this version of its model."""
    return _VERSION_TAG + _encode_varint(len(version)) + version.encode()


def timeout_field(timeout_us: int) -> bytes:
    """What is appended to a request for Triton's `timeout` parameter, which bounds its wait in the queue."""
    parameter = ModelInferRequest()
    parameter.parameters["timeout"].int64_param = timeout_us
    return bytes(parameter.SerializeToString())


def read_stream_response(body: bytes) -> tuple[str, InferHeader]:
    """The error message, empty where there is none, and the header of a serialized ModelStreamInferResponse.

    Raises:
        InvalidArgument: The bytes are not one.
    """
    error, response = b"", b""
    for number, _, content, stop in _fields(body):
        if number == _ERROR_MESSAGE:
            error = body[content:stop]
        elif number == _INFER_RESPONSE:
            response += body[content:stop]  # A message given in parts is their concatenation.
    return error.decode("utf-8", "replace"), read_header(response)


def _fields(body: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Every length-delimited field: its number, where it starts, where its content does, and where it ends."""
    position, end = 0, len(body)
    while position < end:
        start = position
        tag, position = _varint(body, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise InvalidArgument(f"field number {number} is not allowed")
        if wire_type == _LENGTH:
            length, position = _varint(body, position, end)
            stop = position + length
            if stop > end:
                raise InvalidArgument(f"field {number} says {length} bytes, {end - position} are left")
            yield number, start, position, stop
            position = stop
        elif wire_type == _VARINT:
            _, position = _varint(body, position, end)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise InvalidArgument(f"field {number} has wire type {wire_type}, which no tensor message uses")
    if position > end:
        raise InvalidArgument("the message ends within a field")


def _varint(body: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a base-128 integer of at most 64 bits; returns it and the position after it."""
    value = shift = 0
    while position < end:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
        if shift > 63:
            break
    else:
        raise InvalidArgument("the message ends within a number")
    raise InvalidArgument("a number is longer than 64 bits")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
