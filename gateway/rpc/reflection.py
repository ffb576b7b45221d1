"""gRPC reflection: `grpc.reflection.v1`, and `v1alpha`, which older clients ask for. On the wire they differ in name alone."""

from collections.abc import Iterable

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from gateway.rpc.call import Method
from gateway.rpc.handlers import Methods

SERVICE_NAMES = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")


def methods(services: Iterable[str]) -> dict[str, Method]:
    """Those that describe the services, and reflection itself, to whoever asks; by path."""
    _describe_v1()
    alpha = Methods()
    servicer = reflection.aio.ReflectionServicer((*services, *SERVICE_NAMES))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, alpha)  # type: ignore[no-untyped-call]  # Generated.
    v1 = {path.replace(*SERVICE_NAMES): method for path, method in alpha.by_path.items()}
    return alpha.by_path | v1


def _describe_v1() -> None:
    alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    v1 = text_format.Parse(text_format.MessageToString(alpha).replace("v1alpha", "v1"), FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
