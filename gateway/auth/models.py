"""Which models a caller may name, and which it is shown."""

from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)

from gateway.call import Identity
from gateway.errors import InvalidArgument, PermissionDenied

_REQUESTS = {
    "ModelReady": ModelReadyRequest,
    "ModelMetadata": ModelMetadataRequest,
    "ModelConfig": ModelConfigRequest,
    "ModelStatistics": ModelStatisticsRequest,
    "RepositoryModelLoad": RepositoryModelLoadRequest,
    "RepositoryModelUnload": RepositoryModelUnloadRequest,
}


def check_model(identity: Identity, model: str) -> None:
    """Refuse a model that the caller may not name, whether it is there or not.

    Raises:
        PermissionDenied: The message names the model.
    """
    if not identity.may_name(model):
        raise PermissionDenied(f"model {model!r} is not one that this caller may use")


def named_model(method: str, request: bytes) -> str:
    """The model that the request of an operation names; empty where it names none.

    Raises:
        InvalidArgument: The request is not the method's.
    """
    kind = _REQUESTS.get(method)
    if kind is None:
        return ""
    try:
        message = kind.FromString(request)
    except DecodeError as error:
        raise InvalidArgument(f"the request is not a {kind.DESCRIPTOR.name}") from error
    return str(message.model_name if method.startswith("Repository") else message.name)


def only_named(identity: Identity, method: str, response: bytes) -> bytes:
    """The answer about many models, less those that the caller may not name."""
    if "*" in identity.models:
        return response
    if method == "RepositoryIndex":
        index = RepositoryIndexResponse.FromString(response)
        shown = [entry for entry in index.models if identity.may_name(entry.name)]
        return bytes(RepositoryIndexResponse(models=shown).SerializeToString())
    if method == "ModelStatistics":
        statistics = ModelStatisticsResponse.FromString(response)
        counted = [entry for entry in statistics.model_stats if identity.may_name(entry.name)]
        return bytes(ModelStatisticsResponse(model_stats=counted).SerializeToString())
    return response
