"""What Triton's statuses and messages mean, in errors of ours that a caller may see."""

import re

import grpc

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    Internal,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
    Unimplemented,
)

_KINDS: dict[grpc.StatusCode, type[GatewayError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: InvalidArgument,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}

# Triton puts it before its messages; the caller has its own id.
_REQUEST_ID = re.compile(r"^\[request id: [^]]*\] ")
_PYTHON_STACK = re.compile(r"\s*\n\s*At:\n.*", re.DOTALL)
_STUB_DIED = re.compile(r"Stub process .* is not healthy")
# What gRPC's core says, and no server.
_CUT_OFF = re.compile(
    r"failed to connect|Connection re(set|fused)|Socket closed|Broken pipe|GOAWAY|RST_STREAM|Stream removed|ping timeout"
    r"|End of TCP stream|(recv|send)msg"
)
# A path's last part is kept; an address of the web is not a path.
_PATH = re.compile(r"(?<![\w.:/])(?:/[\w.+@-]+)+/([\w.+@-]+)")


class ReplicaLost(Unavailable):
    """The connection to the server broke or cannot be made: no call of any model gets through."""


class ModelAway(Unavailable):
    """The server is there, and the process of its model is not: another server may have one."""


def of_status(code: grpc.StatusCode, details: str) -> GatewayError:
    """The error that a status of Triton means.

    Triton answers UNAVAILABLE for a full queue, a wait that took too long and a server that is not there: what a
    caller should do differs, so the message decides.
    """
    message = cleaned(details)
    if code is grpc.StatusCode.UNAVAILABLE or _is_cut_off(code, message):
        kind = ReplicaLost if _CUT_OFF.search(message) else Unavailable
        return _by_message(message) or kind(
            "the inference server cannot be reached; it is being restarted or is not ready"
        )
    if _STUB_DIED.search(message):
        return ModelAway("the model's process died; it is being started again")
    if code is grpc.StatusCode.INTERNAL or code not in _KINDS:
        return Internal(message or "the inference server failed")
    return _KINDS[code](message)


def of_stream_error(details: str, *, by_model: bool) -> GatewayError:
    """The error that a message within a stream means; there is no status beside it.

    Args:
        by_model: The request had reached the model.
    """
    message = cleaned(details)
    return _by_message(message) or (Internal(message) if by_model else InvalidArgument(message))


def cleaned(details: str) -> str:
    """Triton's message without what belongs to the server: stacks of its Python models, folders, ids of its own."""
    return _PATH.sub(r"\1", _PYTHON_STACK.sub("", _REQUEST_ID.sub("", details)))


def _is_cut_off(code: grpc.StatusCode, message: str) -> bool:
    """Whether gRPC itself, and no server, says that the call ended with its connection."""
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return _CUT_OFF.search(message) is not None
    return code is grpc.StatusCode.CANCELLED


def _by_message(message: str) -> GatewayError | None:
    if "Exceeds maximum queue size" in message:
        return Overloaded("the model's queue is full; try again later", "model-queue")
    if "Request timeout expired" in message:
        return DeadlineExceeded("the request waited in the model's queue for longer than its timeout")
    if "unknown model" in message or "is not found" in message or "is not ready" in message:
        return NotFound(message)
    return None
