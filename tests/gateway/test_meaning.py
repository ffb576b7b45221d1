"""What Triton says reaches the caller without what belongs to the server."""

import grpc
import pytest

from gateway.errors import DeadlineExceeded, Internal, InvalidArgument, NotFound, Overloaded, Unavailable
from gateway.upstream import meaning
from gateway.upstream.meaning import ModelAway, ReplicaLost


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[request id: 7] unexpected shape for input 'a'", "unexpected shape for input 'a'"),
        (
            "message: RuntimeError: no\n\nAt:\n  /srv/models/negate/1/model.py(11): execute\n",
            "message: RuntimeError: no",
        ),
        ("cannot open /srv/models/negate/1/labels.txt for reading", "cannot open labels.txt for reading"),
        ("failed to load '/opt/tritonserver/backends/x.so'", "failed to load 'x.so'"),
        ("see https://github.com/triton/docs for more", "see https://github.com/triton/docs for more"),
        ("expected [-1,4], got FP32/INT8", "expected [-1,4], got FP32/INT8"),
    ],
)
def test_a_message_loses_paths_and_stacks(said: str, shown: str) -> None:
    assert meaning.cleaned(said) == shown


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "[request id: 1] Exceeds maximum queue size", Overloaded),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", DeadlineExceeded),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'x' is not found", NotFound),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; ipv4:127.0.0.1:1", ReplicaLost),
        (grpc.StatusCode.UNAVAILABLE, "the model is out of memory", Unavailable),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", ReplicaLost),
        (grpc.StatusCode.INTERNAL, "Failed, message: Stub process 'a_0_0' is not healthy.", ModelAway),
        (grpc.StatusCode.INVALID_ARGUMENT, "bad shape", InvalidArgument),
        (grpc.StatusCode.UNKNOWN, "", Internal),
    ],
)
def test_a_status_is_told_apart_by_its_message(code: grpc.StatusCode, said: str, kind: type[Exception]) -> None:
    error = meaning.of_status(code, said)
    assert type(error) is kind
    assert error.message and "127.0.0.1" not in error.message


def test_within_a_stream_the_models_failure_is_not_the_callers() -> None:
    assert type(meaning.of_stream_error("boom", by_model=True)) is Internal
    assert type(meaning.of_stream_error("bad shape", by_model=False)) is InvalidArgument
    assert type(meaning.of_stream_error("Exceeds maximum queue size", by_model=False)) is Overloaded
