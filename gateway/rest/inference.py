"""The body of `POST /v2/models/{model}/infer`: JSON, with binary tensors behind it where the caller likes."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from tritonclient.grpc.service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse

from contract.tensors import DataType
from gateway.errors import InvalidArgument
from gateway.rest import json_tensors, json_text
from gateway.routing.catalog import Model

Parameter = bool | int | float | str
Parameters = dict[str, Parameter]

_INT64_MAX = 2**63 - 1


class InferenceInput(BaseModel):
    """One tensor: its elements in `data`, or behind the JSON where `parameters` has `binary_data_size`."""

    name: str = Field(min_length=1)
    datatype: DataType
    shape: list[Annotated[int, Field(ge=0, le=_INT64_MAX), json_text.WHOLE]] = Field(max_length=32)
    parameters: Parameters = {}
    data: Any = None


class InferenceOutput(BaseModel):
    """One output that is wanted: `binary_data` and `classification` are parameters."""

    name: str = Field(min_length=1)
    parameters: Parameters = {}


class InferenceRequest(BaseModel):
    """What a model is asked; without `outputs` all of them are wanted."""

    id: str = ""
    parameters: Parameters = {}
    inputs: list[InferenceInput] = Field(max_length=1_000)
    outputs: list[InferenceOutput] = Field(default=[], max_length=1_000)


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """How the caller wants its outputs.

    Attributes:
        binary_by_default: For outputs it did not name.
        binary: For those it named.
    """

    binary_by_default: bool
    binary: dict[str, bool]

    def is_binary(self, output: str) -> bool:
        """Whether this output travels behind the JSON."""
        return self.binary.get(output, self.binary_by_default)


def read_request(
    body: bytes, header_length: int | None, model: str, version: str
) -> tuple[ModelInferRequest, ResponseForm]:
    """From the body of a REST request to the protocol's message.

    Args:
        header_length: Length of the JSON at the body's start; None where all of it is JSON.

    Raises:
        InvalidArgument: The message names the field.
    """
    if header_length is None:
        header_length = len(body)
    if not 0 < header_length <= len(body):
        raise InvalidArgument(f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
    request = _parse(body[:header_length])
    message = ModelInferRequest(model_name=model, model_version=version, id=request.id)
    binary_by_default = bool(request.parameters.pop("binary_data_output", False))
    for name, value in request.parameters.items():
        set_parameter(message.parameters[name], value)
    position = header_length
    for tensor in request.inputs:
        size = tensor.parameters.pop("binary_data_size", None)
        if size is None:
            raw = json_tensors.to_raw(tensor.name, tensor.datatype, tensor.shape, tensor.data)
        elif type(size) is int and 0 <= size <= len(body) - position:  # True is an int too.
            raw = body[position : position + size]
            position += size
        else:
            raise InvalidArgument(
                f"input {tensor.name!r}: binary_data_size is {size}, {len(body) - position} bytes are left"
            )
        target = message.inputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            set_parameter(target.parameters[name], value)
        message.raw_input_contents.append(raw)
    if position != len(body):
        raise InvalidArgument(f"{len(body) - position} bytes are left over after the binary tensors")
    binary = {}
    for output in request.outputs:
        binary[output.name] = bool(output.parameters.pop("binary_data", binary_by_default))
        wanted = message.outputs.add(name=output.name)
        for name, value in output.parameters.items():
            set_parameter(wanted.parameters[name], value)
    return message, ResponseForm(binary_by_default, binary)


def read_raw_request(body: bytes, model: Model, version: str) -> tuple[ModelInferRequest, ResponseForm]:
    """From a body that is the one input's data and nothing else; its batch is of 1.

    Raises:
        InvalidArgument: The model has more inputs, or the shape cannot be told.
    """
    if len(model.inputs) != 1:
        raise InvalidArgument(f"a raw request is one input's data, model {model.name!r} has {len(model.inputs)} inputs")
    (spec,) = model.inputs
    if spec.data_type is DataType.BYTES:
        count, raw = 1, json_tensors.join_bytes([body])
    else:
        count, odd = divmod(len(body), spec.data_type.item_bytes)
        if odd:
            raise InvalidArgument(f"input {spec.name!r}: {len(body)} bytes are no whole number of {spec.data_type}")
        raw = body
    message = ModelInferRequest(model_name=model.name, model_version=version)
    shape = json_tensors.shape_of(spec, model.batches, count)
    message.inputs.add(name=spec.name, datatype=spec.data_type.value, shape=shape)
    message.raw_input_contents.append(raw)
    return message, ResponseForm(binary_by_default=True, binary={})


def write_response(message: ModelInferResponse, form: ResponseForm) -> tuple[bytes, int | None]:
    """From the protocol's message to the body of a REST response.

    Returns:
        The body, and the length of the JSON at its start; None where all of it is JSON.

    Raises:
        InvalidArgument: An output cannot travel in the form asked for.
    """
    outputs, tails = [], []
    for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        data_type = DataType(tensor.datatype)
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        parameters = {name: parameter_value(parameter) for name, parameter in tensor.parameters.items()}
        if form.is_binary(tensor.name):
            parameters["binary_data_size"] = len(raw)
            tails.append(raw)
        else:
            output["data"] = json_tensors.from_raw(tensor.name, data_type, raw)
        if parameters:
            output["parameters"] = parameters
        outputs.append(output)
    response: dict[str, Any] = {"model_name": message.model_name, "model_version": message.model_version}
    if message.id:
        response["id"] = message.id
    if message.parameters:
        response["parameters"] = {name: parameter_value(value) for name, value in message.parameters.items()}
    response["outputs"] = outputs
    header = json_text.dump(response)
    return (b"".join((header, *tails)), len(header)) if tails else (header, None)


def parameter_value(parameter: InferParameter) -> Parameter:
    """The value of a parameter, whichever it is."""
    value: Parameter = getattr(parameter, parameter.WhichOneof("parameter_choice"))
    return value


def _parse(text: bytes) -> InferenceRequest:
    try:
        return InferenceRequest.model_validate(json_text.parse(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidArgument(f"{field}: {first['msg']}") from error


def set_parameter(parameter: InferParameter, value: Parameter) -> None:
    """Give a parameter its value, in the type that JSON has it in."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and value > _INT64_MAX:
        parameter.uint64_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value
