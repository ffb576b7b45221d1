"""gRPC, RPC by RPC: the gateway's messages and statuses are Triton's, but for the exceptions that are listed."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.conformance.conftest import Endpoint, Gateway

_HIDDEN = {"system_shared_memory", "cuda_shared_memory", "trace", "logging"}

Call = Callable[[Any], Any]


def _infer(model: str = "sum", **fields: Any) -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name=model, id="7", **fields)
    for name in "ab":
        request.inputs.add(name=name, datatype="INT32", shape=[1, 4])
        request.raw_input_contents.append(np.arange(4, dtype=np.int32).tobytes())
    return request


def _with(change: Callable[[Any], Any], model: str = "sum") -> Call:
    request = _infer(model)
    change(request)
    return lambda stub: stub.ModelInfer(request, timeout=20)


def _typed_contents() -> messages.ModelInferRequest:
    """Tensors in the message's own fields in place of raw bytes."""
    request = messages.ModelInferRequest(model_name="sum")
    for name in "ab":
        request.inputs.add(name=name, datatype="INT32", shape=[1, 4]).contents.int_contents.extend([1, 2, 3, 4])
    return request


def _raised(values: list[float]) -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name="negate")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1, 2])
    request.raw_input_contents.append(np.array(values, np.float32).tobytes())
    return request


SERVED: dict[str, Call] = {
    "live": lambda stub: stub.ServerLive(messages.ServerLiveRequest()),
    "ready": lambda stub: stub.ServerReady(messages.ServerReadyRequest()),
    "a ready model": lambda stub: stub.ModelReady(messages.ModelReadyRequest(name="sum")),
    "an absent model is not ready": lambda stub: stub.ModelReady(messages.ModelReadyRequest(name="absent")),
    "metadata": lambda stub: stub.ModelMetadata(messages.ModelMetadataRequest(name="echo")),
    "config": lambda stub: stub.ModelConfig(messages.ModelConfigRequest(name="repeat", version="1")),
    "index": lambda stub: stub.RepositoryIndex(messages.RepositoryIndexRequest()),
    "ready index": lambda stub: stub.RepositoryIndex(messages.RepositoryIndexRequest(ready=True)),
    "inference": lambda stub: stub.ModelInfer(_infer()),
    "a version": lambda stub: stub.ModelInfer(_infer(model_version="1")),
    "one output": _with(lambda request: request.outputs.add(name="difference")),
    "typed contents": lambda stub: stub.ModelInfer(_typed_contents()),
    "a priority": _with(
        lambda request: request.parameters["priority"].MergeFrom(messages.InferParameter(uint64_param=1))
    ),
    "a parameter of one's own": _with(
        lambda request: request.parameters["own"].MergeFrom(messages.InferParameter(string_param="a"))
    ),
    "one input": lambda stub: stub.ModelInfer(_raised([1, 2])),
}

REFUSED: dict[str, Call] = {
    "an absent model": lambda stub: stub.ModelInfer(_infer("absent")),
    "an absent version": lambda stub: stub.ModelInfer(_infer(model_version="7")),
    "a version that is no number": lambda stub: stub.ModelInfer(_infer(model_version="one")),
    "no model": lambda stub: stub.ModelInfer(messages.ModelInferRequest()),
    "a wrong shape": _with(lambda request: request.inputs[0].shape.append(1)),
    "a negative shape": _with(lambda request: request.inputs[0].shape.__setitem__(0, -1)),
    "a wrong type": _with(lambda request: setattr(request.inputs[0], "datatype", "FP32")),
    "a type that is none": _with(lambda request: setattr(request.inputs[0], "datatype", "UINT9")),
    "a wrong name": _with(lambda request: setattr(request.inputs[0], "name", "c")),
    "too few bytes": _with(lambda request: request.raw_input_contents.__setitem__(0, b"1234")),
    "too many bytes": _with(lambda request: request.raw_input_contents.__setitem__(0, bytes(400))),
    "too few inputs": _with(lambda request: request.inputs.pop()),
    "raw and typed contents": _with(lambda request: request.inputs[0].contents.int_contents.append(1)),
    "an absent output": _with(lambda request: request.outputs.add(name="product")),
    "an unregistered region": _with(
        lambda request: request.inputs[0]
        .parameters["shared_memory_region"]
        .MergeFrom(messages.InferParameter(string_param="a"))
    ),
    "a reserved parameter": _with(
        lambda request: request.parameters["triton_own"].MergeFrom(messages.InferParameter(bool_param=True))
    ),
    "a decoupled model": lambda stub: stub.ModelInfer(messages.ModelInferRequest(model_name="repeat")),
    "the model's failure": lambda stub: stub.ModelInfer(_raised([666, 0])),
    "metadata of an absent model": lambda stub: stub.ModelMetadata(messages.ModelMetadataRequest(name="absent")),
    "config of an absent model": lambda stub: stub.ModelConfig(messages.ModelConfigRequest(name="absent")),
    "statistics of an absent model": lambda stub: stub.ModelStatistics(messages.ModelStatisticsRequest(name="absent")),
}

# Triton would serve these; the gateway says why it does not.
UNIMPLEMENTED: dict[str, Call] = {
    "system shared memory": lambda stub: stub.SystemSharedMemoryStatus(messages.SystemSharedMemoryStatusRequest()),
    "a system region": lambda stub: stub.SystemSharedMemoryRegister(messages.SystemSharedMemoryRegisterRequest()),
    "CUDA shared memory": lambda stub: stub.CudaSharedMemoryStatus(messages.CudaSharedMemoryStatusRequest()),
    "a CUDA region": lambda stub: stub.CudaSharedMemoryRegister(messages.CudaSharedMemoryRegisterRequest()),
    "trace": lambda stub: stub.TraceSetting(messages.TraceSettingRequest()),
    "logging": lambda stub: stub.LogSettings(messages.LogSettingsRequest()),
}


def _outcome(endpoint: Endpoint, call: Call) -> tuple[grpc.StatusCode, Any]:
    with grpc.insecure_channel(endpoint.grpc) as channel:
        try:
            return grpc.StatusCode.OK, call(GRPCInferenceServiceStub(channel))
        except grpc.RpcError as error:
            return error.code(), error.details()


@pytest.mark.parametrize("name", SERVED)
def test_what_triton_serves_the_gateway_serves_alike(bare: Endpoint, gateway: Gateway, name: str) -> None:
    expected = _outcome(bare, SERVED[name])
    assert expected[0] is grpc.StatusCode.OK
    assert _outcome(gateway, SERVED[name]) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_triton_refuses_the_gateway_refuses_alike(bare: Endpoint, gateway: Gateway, name: str) -> None:
    (expected, _), (status, message) = _outcome(bare, REFUSED[name]), _outcome(gateway, REFUSED[name])
    assert status is expected is not grpc.StatusCode.OK
    assert message
    for internal in ("At:", "/tmp", "model.py(", "request id"):
        assert internal not in message


def test_a_load_of_an_absent_model_is_no_failure_of_the_server(bare: Endpoint, gateway: Gateway) -> None:
    call: Call = lambda stub: stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="absent"))
    assert _outcome(bare, call)[0] is grpc.StatusCode.INTERNAL
    assert _outcome(gateway, call) == (grpc.StatusCode.NOT_FOUND, "model 'absent' is not in the repository")


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_what_belongs_to_the_operator_is_refused_with_a_reason(gateway: Gateway, name: str) -> None:
    status, message = _outcome(gateway, UNIMPLEMENTED[name])
    assert status is grpc.StatusCode.UNIMPLEMENTED
    assert "shared memory" in message or "belong to the operator" in message


def test_the_server_offers_what_triton_does_less_what_belongs_to_the_operator(bare: Endpoint, gateway: Gateway) -> None:
    call: Call = lambda stub: stub.ServerMetadata(messages.ServerMetadataRequest())
    (_, expected), (_, answer) = _outcome(bare, call), _outcome(gateway, call)
    assert set(expected.extensions) - set(answer.extensions) == _HIDDEN
    assert (answer.name, answer.version) == (expected.name, expected.version)


def test_statistics_count_what_the_gateway_sent(bare: Endpoint, gateway: Gateway) -> None:
    def count(endpoint: Endpoint) -> int:
        _, answer = _outcome(endpoint, lambda stub: stub.ModelStatistics(messages.ModelStatisticsRequest(name="sum")))
        return int(answer.model_stats[0].inference_count)

    before = count(gateway)
    assert _outcome(gateway, SERVED["inference"])[0] is grpc.StatusCode.OK
    assert count(bare) == count(gateway) == before + 1


def test_a_compressed_message_is_bounded_by_what_it_becomes(gateway: Gateway) -> None:
    request = _infer()
    request.raw_input_contents.append(bytes(200_000_000))
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as error:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30, compression=grpc.Compression.Gzip)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
