"""ModelStreamInfer and generate_stream: decoupled models, sequences, errors, cancellation and deadlines."""

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio_client
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse
from tritonclient.utils import InferenceServerException

from tests.conformance.clients import Tensors, grpc_inputs, int32
from tests.conformance.conftest import MAX_STREAM_IN_FLIGHT, Endpoint, Gateway

_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def _request(model: str, request_id: str = "", **inputs: int) -> ModelInferRequest:
    """With INT32 inputs of one element, and a batch of 1 where the model has one."""
    request = ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        request.inputs.add(name=name, datatype="INT32", shape=[1, 1] if model == "accumulate" else [1])
        request.raw_input_contents.append(np.array([value], np.int32).tobytes())
    return request


def _stream(channel: grpc.Channel | grpc.aio.Channel) -> Callable[..., Any]:
    return channel.stream_stream(_STREAM, ModelInferRequest.SerializeToString, ModelStreamInferResponse.FromString)


def _answers(endpoint: Endpoint, *requests: ModelInferRequest) -> list[ModelStreamInferResponse]:
    with grpc.insecure_channel(endpoint.grpc) as channel:
        return list(_stream(channel)(iter(requests), timeout=20))


def _turns(answers: list[ModelStreamInferResponse]) -> list[int]:
    return [int(np.frombuffer(answer.infer_response.raw_output_contents[0], np.int32)[0]) for answer in answers]


def test_a_decoupled_model_answers_as_often_as_it_likes(endpoint: Endpoint) -> None:
    assert _turns(_answers(endpoint, _request("repeat", times=5))) == [0, 1, 2, 3, 4]
    assert _answers(endpoint, _request("repeat", times=0)) == []
    assert _answers(endpoint) == []


def test_the_two_answer_alike(bare: Endpoint, gateway: Gateway) -> None:
    marked = _request("repeat", "marked", times=2)
    marked.parameters["triton_enable_empty_final_response"].bool_param = True
    malformed = _request("repeat", "malformed", times=1)
    malformed.inputs[0].shape[:] = [7]
    for requests in (
        [_request("repeat", "plain", times=3)],
        [marked],
        [_request("repeat", "none", times=0)],
        [_request("echo", "not decoupled", in_INT32=4)],
        [ModelInferRequest(model_name="echo", id="no outputs")],
    ):
        assert _answers(bare, *requests) == _answers(gateway, *requests)
    for failing in (
        [_request("repeat", "negative", times=-1)],
        [_request("absent", "absent", times=1)],
        [malformed],
        [_request("repeat", "no input")],
        [ModelInferRequest()],
    ):
        (expected,), (answer,) = _answers(bare, *failing), _answers(gateway, *failing)
        assert answer.infer_response == expected.infer_response
        # The gateway drops Triton's id of the request and adds what the model takes.
        assert answer.error_message.split(";")[0] in expected.error_message
        assert answer.error_message


def test_an_error_does_not_end_the_stream(endpoint: Endpoint) -> None:
    requests = [_request("absent", "first"), _request("repeat", "second", times=1)]
    answers = {answer.infer_response.id: answer for answer in _answers(endpoint, *requests)}
    assert "absent" in answers["first"].error_message
    assert _turns([answers["second"]]) == [0]


def test_a_sequence_keeps_its_state_within_a_stream(endpoint: Endpoint) -> None:
    requests = []
    for x in range(1, 6):
        request = _request("accumulate", str(x), x=x)
        request.parameters["sequence_id"].int64_param = 1_001 if endpoint.name == "gateway" else 1_002
        request.parameters["sequence_start"].bool_param = x == 1
        request.parameters["sequence_end"].bool_param = x == 5
        requests.append(request)
    answers = _answers(endpoint, *requests)
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3", "4", "5"]
    assert _turns(answers) == [1, 3, 6, 10, 15]


def test_more_requests_than_may_be_in_flight_are_all_answered(endpoint: Endpoint) -> None:
    requests = [_request("repeat", str(number), times=2) for number in range(10 * MAX_STREAM_IN_FLIGHT)]
    ids = sorted(int(answer.infer_response.id) for answer in _answers(endpoint, *requests))
    assert ids == sorted([*range(10 * MAX_STREAM_IN_FLIGHT)] * 2)


def test_tritons_client_streams(endpoint: Endpoint) -> None:
    seen: queue.Queue[tuple[Any, Any]] = queue.Queue()
    tensors: Tensors = {"times": int32(2)}
    with grpc_client.InferenceServerClient(endpoint.grpc) as client:
        client.start_stream(lambda result, error: seen.put((result, error)))
        client.async_stream_infer("repeat", grpc_inputs(tensors), request_id="7", enable_empty_final_response=True)
        results = [seen.get(timeout=20) for _ in range(3)]
        client.async_stream_infer("absent", grpc_inputs(tensors))
        _, error = seen.get(timeout=20)
        client.stop_stream()
    assert [error for _, error in results] == [None] * 3
    assert [result.get_response().id for result, _ in results] == ["7"] * 3
    assert [result.get_response().parameters["triton_final_response"].bool_param for result, _ in results] == [
        False,
        False,
        True,
    ]
    assert isinstance(error, InferenceServerException) and "absent" in str(error)


async def test_tritons_asyncio_client_streams(endpoint: Endpoint) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for times in (1, 2):
            yield {"model_name": "repeat", "inputs": grpc_inputs({"times": int32(times)}), "request_id": str(times)}

    async with grpc_aio_client.InferenceServerClient(endpoint.grpc) as client:
        ids = [result.get_response().id async for result, error in client.stream_infer(requests()) if error is None]
    assert sorted(ids) == ["1", "2", "2"]


def _repeated(repository: Path) -> int:
    """How many answers the last request to `repeat` was worth, whether they were read or not."""
    deadline = time.monotonic() + 20
    while not (path := repository / "repeat" / "1" / "turns").exists():
        assert time.monotonic() < deadline, "the model still runs"
        time.sleep(0.05)
    turns = int(path.read_text())
    path.unlink()
    return turns


@pytest.fixture
def repeated(repository: Path) -> Iterator[Callable[[], int]]:
    (repository / "repeat" / "1" / "turns").unlink(missing_ok=True)
    yield lambda: _repeated(repository)


def test_a_cancelled_stream_cancels_the_model(endpoint: Endpoint, repeated: Callable[[], int]) -> None:
    with grpc.insecure_channel(endpoint.grpc) as channel:
        call = _stream(channel)(iter([_request("repeat", times=200, wait_ms=50)]), timeout=20)
        next(call)
        call.cancel()
    assert repeated() < 100


def test_a_deadline_ends_the_stream_and_the_model(endpoint: Endpoint, repeated: Callable[[], int]) -> None:
    with grpc.insecure_channel(endpoint.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        list(_stream(channel)(iter([_request("repeat", times=200, wait_ms=50)]), timeout=1))
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert repeated() < 100


def test_events_come_as_they_are_made_and_a_closed_connection_cancels_the_model(
    endpoint: Endpoint, repeated: Callable[[], int]
) -> None:
    body = {"times": 200, "wait_ms": 50}
    with httpx.stream("POST", f"http://{endpoint.http}/v2/models/repeat/generate_stream", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = (line for line in reply.iter_lines() if line)
        for turn in range(2):
            event = httpx.Response(200, text=next(events).removeprefix("data: ")).json()
            assert event == {"model_name": "repeat", "model_version": "1", "turn": turn}
    assert repeated() < 100


async def test_streams_of_both_kinds_of_models_leave_triton_running(gateway: Gateway) -> None:
    """Triton 2.51 alone aborts within a few of them."""

    async def mixed(channel: grpc.aio.Channel) -> None:
        call = _stream(channel)()
        for request in (_request("repeat", times=10, wait_ms=3), _request("echo", in_INT32=1)):
            await call.write(request)
        assert len([await call.read() for _ in range(11)]) == 11
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        for _ in range(30):
            await asyncio.gather(*(mixed(channel) for _ in range(6)))


def test_a_cancelled_stream_does_not_keep_the_model_that_refused_in_it(gateway: Gateway) -> None:
    """Triton alone never lets go of a request that it refused, nor of the model, where the stream is cancelled."""
    refused = _request("unloaded", "no input")
    with grpc.insecure_channel(gateway.grpc) as channel:
        for waits_s, requests in {
            0.0: [refused],
            0.3: [refused],
            0.1: [_request("repeat", "under way", times=20, wait_ms=20), refused],
        }.items():
            for reads in (False, True):
                more: queue.SimpleQueue[ModelInferRequest | None] = queue.SimpleQueue()
                for request in requests:
                    more.put(request)
                call = _stream(channel)(iter(more.get, None), timeout=20)
                if reads:
                    next(call)
                time.sleep(waits_s)
                call.cancel()
                more.put(None)
    with grpc_client.InferenceServerClient(gateway.grpc) as client:
        client.unload_model("unloaded")
        try:
            deadline = time.monotonic() + 20
            while _state(client, "unloaded") != "UNAVAILABLE":
                assert time.monotonic() < deadline, "the model is still in use"
                time.sleep(0.05)
        finally:
            client.load_model("unloaded")


def _state(client: grpc_client.InferenceServerClient, model: str) -> str:
    (state,) = [entry.state for entry in client.get_model_repository_index().models if entry.name == model]
    return str(state)


def test_a_stream_is_measured(gateway: Gateway) -> None:
    def figures() -> dict[str, float]:
        lines = httpx.get(f"http://{gateway.metrics}/metrics").text.splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    streams = 'tidegate_stream_duration_seconds_count{outcome="ok"}'
    calls = 'tidegate_stage_duration_seconds_count{model="repeat",outcome="ok",stage="total",version="1"}'
    before = figures()
    _answers(gateway, _request("repeat", times=3), _request("repeat", times=3))
    after = figures()
    assert after[streams] - before.get(streams, 0) == 1
    assert after[calls] - before.get(calls, 0) == 2
    assert (after["tidegate_open_streams"], after["tidegate_in_flight_calls"]) == (0, 0)


async def test_one_slow_reader_does_not_hold_up_another(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stream = channel.stream_stream(
            _STREAM, ModelInferRequest.SerializeToString, ModelStreamInferResponse.FromString
        )
        idle = stream()
        await idle.write(_request("repeat", times=5_000))
        await idle.read()
        async with asyncio.timeout(20):
            other = stream()
            await other.write(_request("repeat", times=3))
            assert _turns([await other.read() for _ in range(3)]) == [0, 1, 2]
        idle.cancel()
        other.cancel()
