"""`POST /v1/models/{model}/classify`: photographs in, labels out."""

from pydantic import BaseModel
from starlette.datastructures import UploadFile
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from contract.card import ENCODED_SUFFIX
from contract.tensors import ENCODED, ERROR, SCORES
from gateway.errors import Internal, InvalidArgument
from gateway.rest.body import Body
from gateway.rest.json_tensors import join_bytes, split_bytes
from gateway.routing.catalog import ModelCatalog

_MULTIPART = "multipart/form-data"


class Prediction(BaseModel):
    """One label.

    Attributes:
        index: Which class, from 0.
        score: The model's output for it, a logit: higher is likelier.
    """

    label: str
    index: int
    score: float


class Classification(BaseModel):
    """What a photograph shows, best first."""

    predictions: list[Prediction]
    model: str
    version: str


class Failure(BaseModel):
    """Why a photograph was not classified."""

    error: str


class Classifications(BaseModel):
    """An answer for each file, in the order they were sent."""

    results: list[Classification | Failure]


def model_of_photographs(catalog: ModelCatalog, model: str) -> str:
    """The model that takes photographs for `model`: its `_encoded` twin, or itself.

    Raises:
        NotFound: Neither is served.
        InvalidArgument: It takes tensors, and has no twin.
    """
    twin = model + ENCODED_SUFFIX
    if twin in catalog.models:
        return twin
    if [spec.name for spec in catalog.model(model).inputs] == [ENCODED]:
        return model
    raise InvalidArgument(f"model {model!r} takes tensors; only {twin!r} would take photographs, and it is not served")


def is_multipart(body: Body) -> bool:
    """Whether the body holds files, rather than being one."""
    return body.request.headers.get("content-type", "").startswith(_MULTIPART)


async def read_images(body: Body, max_images: int) -> list[bytes]:
    """The photographs of a request: the body itself, or each file of a form.

    Raises:
        InvalidArgument: There is none, or there are too many.
        TooLarge: The body is over its limit.
    """
    if not is_multipart(body):
        image = await body.read()
        if not image:
            raise InvalidArgument("the body is empty; send an image, or a form with files")
        return [image]
    body.check_headers()
    async with body.request.form(max_files=max_images, max_fields=16) as form:
        images = [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if not images:
        raise InvalidArgument("the form has no file")
    return images


def to_request(model: str, version: str, images: list[bytes], top_k: int) -> bytes:
    """The inference request for photographs."""
    message = ModelInferRequest(model_name=model, model_version=version)
    message.inputs.add(name=ENCODED, datatype="BYTES", shape=[len(images), 1])
    message.raw_input_contents.append(join_bytes(images))
    message.outputs.add(name=SCORES).parameters["classification"].int64_param = top_k
    message.outputs.add(name=ERROR)
    return bytes(message.SerializeToString())


def from_response(body: bytes, model: str) -> list[Classification | Failure]:
    """An answer per photograph.

    Args:
        model: As the caller called it.
    """
    message = ModelInferResponse.FromString(body)
    outputs = {
        tensor.name: (list(tensor.shape), split_bytes(raw))
        for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    }
    if SCORES not in outputs or ERROR not in outputs:
        raise Internal(f"model {message.model_name!r} gave no {SCORES!r} and {ERROR!r}")
    (_, top_k), ranked = outputs[SCORES]
    _, errors = outputs[ERROR]
    return [
        (
            Failure(error=error.decode("utf-8", "replace"))
            if error
            else Classification(
                predictions=[_prediction(text) for text in ranked[row * top_k : (row + 1) * top_k]],
                model=model,
                version=message.model_version,
            )
        )
        for row, error in enumerate(errors)
    ]


def _prediction(text: bytes) -> Prediction:
    """Triton's classification extension says score:index:label, and the label may hold colons."""
    score, index, *label = text.decode("utf-8", "replace").split(":", 2)
    return Prediction(label=label[0] if label else index, index=int(index), score=float(score))
