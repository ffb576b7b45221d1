"""Photographs in, labels out."""

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import InvalidArgument
from gateway.rest import classify
from gateway.rest.body import Body
from gateway.rest.door import CACHE_HEADER, DoorDep, call_of, documented_key
from gateway.rest.openapi import parameters_of

# Served in front of FastAPI.
router = APIRouter(prefix="/v1", tags=["classify"], dependencies=[documented_key])


class _Query(BaseModel):
    top_k: int = Field(5, ge=1, le=1_000, description="Labels for each photograph.")
    version: str = Field("", max_length=20, description="The newest where it is not given.")


_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": _IMAGE,
        "image/jpeg": _IMAGE,
        "image/png": _IMAGE,
        "image/webp": _IMAGE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        },
    },
}


@router.post(
    "/models/{model}/classify",
    summary="Classify one photograph, or several in a form",
    response_model=classify.Classification | classify.Classifications,
    openapi_extra={"requestBody": _BODY, "parameters": parameters_of(_Query)},
)
async def classify_images(request: Request, door: DoorDep, model: str) -> Response:
    """One photograph as the body gives one classification; files in a form give `results`, one for each in order."""
    query = _query(request)
    body = Body(request, door.limits.max_body_bytes)

    async def read_body() -> bytes:
        target = classify.model_of_photographs(door.catalog, model)
        images = await classify.read_images(body, door.limits.max_images)
        return classify.to_request(target, query.version, images, query.top_k)

    answers: list[bytes] = []

    async def serialise(response: bytes) -> None:
        results = classify.from_response(response, model)
        if classify.is_multipart(body):
            answer: classify.Classification | classify.Classifications = classify.Classifications(results=results)
        elif isinstance(results[0], classify.Failure):
            raise InvalidArgument(results[0].error)
        else:
            answer = results[0]
        answers.append(orjson.dumps(answer.model_dump()))

    stages: list[tuple[str, float]] = []
    reply = await door.infer(body, call_of(door, request, read_body, serialise, stages.extend))
    timing = ", ".join(f"{name};dur={seconds * 1_000:.3f}" for name, seconds in stages)
    headers = {CACHE_HEADER: reply.cache.value, "server-timing": timing}
    return Response(answers[0], media_type="application/json", headers=headers)


def _query(request: Request) -> _Query:
    try:
        return _Query.model_validate(dict(request.query_params))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"{first['loc'][0]}: {first['msg']}") from error
