"""Every kind of error has its status in both transports."""

import grpc
import pytest

from gateway import errors
from gateway.errors import ErrorKind, GatewayError
from gateway.rest.status import STATUS as HTTP
from gateway.rpc.status import STATUS as GRPC


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_has_a_status(kind: ErrorKind) -> None:
    assert 400 <= HTTP[kind] < 600
    assert isinstance(GRPC[kind], grpc.StatusCode)


def test_every_kind_has_one_error() -> None:
    kinds = [error.kind for error in GatewayError.__subclasses__()]
    assert sorted(kinds) == sorted(ErrorKind)
    assert all(error.__name__ in (errors.__doc__ or "") for error in GatewayError.__subclasses__())
