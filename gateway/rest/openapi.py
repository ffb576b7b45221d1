"""The OpenAPI document: what FastAPI makes of the routes, and what it cannot see in them."""

from typing import Any

from fastapi import FastAPI
from google.protobuf.message import Message
from pydantic import BaseModel

from gateway.rest import inference
from gateway.rest.messages import schema_name, schemas_of

_SCHEMAS = "#/components/schemas/"
_ERROR = "Error"
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
}

# The public meaning of each status; docs/calls.md has the same table.
_MEANINGS = {
    400: "The request does not fit the protocol or the model.",
    401: "No key, or one that is unknown, wrong, expired or revoked.",
    403: "The key has not the scope, or may not name the model.",
    404: "No such model or version, key or tenant.",
    409: "It is there already.",
    413: "The body is over its limit, or has too many images.",
    429: "A limit is used up, or too much is in flight. Retry-After says when to try again.",
    500: "A failure of the server.",
    501: "Not offered here.",
    503: "The inference server is away, and restarted by itself.",
    504: "Out of time.",
}
_OF_BODIES = {413, 501}


def json_of(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: 200 with JSON."""
    return {200: {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}


def answer(message: type[Message]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: 200 with a message of the protocol as JSON."""
    return json_of(schema_of(message))


def schema_of(message: type[Message]) -> dict[str, Any]:
    """A reference to a message's schema."""
    return {"$ref": _SCHEMAS + schema_name(message.DESCRIPTOR)}


def body_of(schema: dict[str, Any], *, required: bool = True, binary: bool = False) -> dict[str, Any]:
    """For a route's `openapi_extra`: a JSON body, or one with binary tensors behind the JSON."""
    content = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = BINARY
    return {"requestBody": {"required": required, "content": content}}


def parameters_of(query: type[BaseModel]) -> list[dict[str, Any]]:
    """For a route's `openapi_extra`: what it reads from the query."""
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in query.model_json_schema()["properties"].items()
    ]


INFERENCE = {"$ref": _SCHEMAS + inference.InferenceRequest.__name__}
INFERENCE_ANSWER = {"$ref": _SCHEMAS + "InferenceResponse"}


def document(app: FastAPI, messages: tuple[type[Message], ...]) -> dict[str, Any]:
    """The whole document.

    Args:
        messages: Those that routes refer to.
    """
    made = FastAPI.openapi(app)
    schemas = made["components"]["schemas"]
    for message in messages:
        schemas |= schemas_of(message.DESCRIPTOR, _SCHEMAS)
    schemas |= _inference_schemas()
    schemas[_ERROR] = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    # FastAPI's own form of an error, which is not ours.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return made


def _complete(path: str, operation: dict[str, Any]) -> None:
    if "{version}" in path:
        operation.setdefault("parameters", []).append(_VERSION)
    responses = operation["responses"]
    responses.pop("422", None)
    if "security" not in operation:
        return
    for status, meaning in _MEANINGS.items():
        if status in _OF_BODIES and "requestBody" not in operation:
            continue
        if status == 409 and not path.startswith("/admin/"):
            continue
        content = {"application/json": {"schema": {"$ref": _SCHEMAS + _ERROR}}}
        responses.setdefault(str(status), {"description": meaning, "content": content})


def _inference_schemas() -> dict[str, Any]:
    request = inference.InferenceRequest.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas: dict[str, Any] = {**request.pop("$defs"), inference.InferenceRequest.__name__: request}
    parameters = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}}
    output = {
        "name": {"type": "string"},
        "datatype": {"$ref": _SCHEMAS + "DataType"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": parameters,
        "data": {"type": "array", "description": "Flat, row-major; absent where the output is binary."},
    }
    outputs = {"type": "array", "items": _object(output, "name", "datatype", "shape")}
    answered = {name: {"type": "string"} for name in ("model_name", "model_version", "id")}
    response = {**answered, "parameters": parameters, "outputs": outputs}
    schemas["InferenceResponse"] = _object(response, "model_name", "model_version", "outputs")
    return schemas


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}
