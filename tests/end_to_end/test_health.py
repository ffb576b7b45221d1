"""Health, readiness and reflection are open to whoever asks."""

from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gateway.operations import METHODS
from gateway.rpc.reflection import SERVICE_NAMES
from tests.running import Server

_SERVICE = "inference.GRPCInferenceService"


def test_check_and_watch_say_serving(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its types leave out the methods.
        for service in ("", _SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(request, timeout=10)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()


def test_rest_health(server: Server) -> None:
    for path in ("live", "ready"):
        assert httpx.get(f"http://{server.http}/v2/health/{path}").status_code == 200


def test_another_method_is_told_which_is_served(server: Server) -> None:
    refused = httpx.delete(f"http://{server.http}/v2/health/live")
    assert (refused.status_code, refused.headers.get_list("allow")) == (405, ["GET"])


@pytest.mark.parametrize("reflection", SERVICE_NAMES)
def test_a_client_that_knows_nothing_lists_describes_and_calls_by_reflection(server: Server, reflection: str) -> None:
    """As grpcurl does it: names, messages and their fields come from the server alone."""
    with grpc.insecure_channel(server.grpc) as channel:
        database: Any = ProtoReflectionDescriptorDatabase(channel)
        database._stub.ServerReflectionInfo = channel.stream_stream(
            f"/{reflection}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        assert set(database.get_services()) == {_SERVICE, "grpc.health.v1.Health", *SERVICE_NAMES}
        pool = DescriptorPool(database)
        assert pool.FindServiceByName(reflection).methods[0].input_type.file.package == reflection.rpartition(".")[0]
        service = pool.FindServiceByName(_SERVICE)
        assert set(service.methods_by_name) >= METHODS | {"ModelInfer", "ModelStreamInfer"}
        method = service.methods_by_name["ModelMetadata"]
        request = GetMessageClass(method.input_type)(name="digits")
        call: Any = channel.unary_unary(
            f"/{_SERVICE}/{method.name}",
            GetMessageClass(method.input_type).SerializeToString,
            GetMessageClass(method.output_type).FromString,
        )
        answer = call(request, timeout=10, metadata=tuple(server.headers.items()))
    assert [(tensor.name, tensor.datatype) for tensor in answer.inputs] == [("images", "UINT8")]
