"""Health, readiness and reflection are open to whoever asks."""

from typing import Any

import grpc
import httpx
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

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


def test_reflection_describes_the_service(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert _SERVICE in database.get_services()
        methods = DescriptorPool(database).FindServiceByName(_SERVICE).methods_by_name
    assert methods["ModelInfer"].input_type.fields_by_name["model_name"].number == 1
