"""Triton's four stock clients work unchanged, and agree."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelStatistics

from tests.running import Server, images_input


@pytest.fixture(scope="module")
def expected(server: Server, test_images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The scores of four images over gRPC."""
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        scores: NDArray[np.float32] = client.infer(
            "digits", images_input(test_images[:4]), headers=server.headers
        ).as_numpy("scores")
    assert scores.shape == (4, 10)
    return scores


def _http_input(images: NDArray[np.uint8], binary: bool) -> list[triton_http.InferInput]:
    tensor = triton_http.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return [tensor]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_http_client_with_binary_and_json_tensors(
    server: Server, test_images: NDArray[np.uint8], expected: NDArray[np.float32], binary_in: bool, binary_out: bool
) -> None:
    outputs = [triton_http.InferRequestedOutput("scores", binary_data=binary_out)]
    with triton_http.InferenceServerClient(server.http) as client:
        reply = client.infer(
            "digits", _http_input(test_images[:4], binary_in), outputs=outputs, request_id="7", headers=server.headers
        )
    # JSON carries a float in enough digits to give the same FP32 back.
    np.testing.assert_array_equal(reply.as_numpy("scores"), expected)
    assert reply.get_response()["id"] == "7"
    assert reply.get_response()["model_version"] == "1"


async def test_asyncio_clients(server: Server, test_images: NDArray[np.uint8], expected: NDArray[np.float32]) -> None:
    async with triton_grpc_aio.InferenceServerClient(server.grpc) as client:
        reply = await client.infer("digits", images_input(test_images[:4]), headers=server.headers)
    np.testing.assert_array_equal(reply.as_numpy("scores"), expected)
    async with triton_http_aio.InferenceServerClient(server.http) as http_client:
        reply = await http_client.infer("digits", _http_input(test_images[:4], True), headers=server.headers)
    np.testing.assert_array_equal(reply.as_numpy("scores"), expected)


def test_the_two_protocols_describe_the_models_alike(server: Server) -> None:
    headers = server.headers
    with triton_grpc.InferenceServerClient(server.grpc) as rpc, triton_http.InferenceServerClient(server.http) as http:
        assert rpc.is_server_live() and http.is_server_live()
        assert rpc.is_server_ready() and http.is_server_ready()
        assert rpc.is_model_ready("digits", headers=headers) and http.is_model_ready("digits", headers=headers)
        assert not http.is_model_ready("absent", headers=headers)
        server_metadata = http.get_server_metadata(headers=headers)
        assert server_metadata == rpc.get_server_metadata(headers=headers, as_json=True)
        assert not {"system_shared_memory", "cuda_shared_memory", "trace", "logging"} & set(
            server_metadata["extensions"]
        )
        metadata = http.get_model_metadata("digits", headers=headers)
        assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
        assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}]
        assert rpc.get_model_metadata("digits", headers=headers).outputs[0].shape == [-1, 10]
        config = http.get_model_config("digits", headers=headers)
        assert config["max_batch_size"] == 32 and config["output"][0]["label_filename"] == "labels.txt"
        assert rpc.get_model_config("digits", headers=headers).config.max_batch_size == 32
        index = http.get_model_repository_index(headers=headers)
        assert {(model["name"], model["state"]) for model in index} == {
            ("digits", "READY"),
            ("digits_encoded", "READY"),
        }
        assert len(rpc.get_model_repository_index(headers=headers).models) == len(index)
        statistics = http.get_inference_statistics("digits", headers=headers)["model_stats"][0]
        assert isinstance(statistics["inference_count"], int)
        assert rpc.get_inference_statistics("digits", headers=headers).model_stats[0].name == "digits"


async def test_single_requests_are_batched(server: Server) -> None:
    """Without a delay in the queue it is chance how many are there when an instance becomes free."""
    bursts = np.random.default_rng(0).integers(0, 256, (10, 64, 32, 32, 3), np.uint8)
    async with triton_grpc_aio.InferenceServerClient(server.grpc) as client:
        before = await _counted(client, server)
        for images in bursts:
            calls = [client.infer("digits", images_input(image[None]), headers=server.headers) for image in images]
            await asyncio.gather(*calls)
        after = await _counted(client, server)
    assert after.inference_count - before.inference_count == 640
    assert 640 / (after.execution_count - before.execution_count) > 1.1


async def _counted(client: triton_grpc_aio.InferenceServerClient, server: Server) -> ModelStatistics:
    """The statistics, when all answers that were given are in them."""
    last = None
    while True:
        now = (await client.get_inference_statistics("digits", headers=server.headers)).model_stats[0]
        if last is not None and now.inference_count == last.inference_count:
            return now
        last = now
        await asyncio.sleep(0.2)
