"""A repeated request is answered from the cache, and the metrics say what happened."""

import asyncio

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from tests.running import Server, running

_RAW = {"inference-header-content-length": "0"}
_INFER = "/inference.GRPCInferenceService/ModelInfer"


def _request(image: NDArray[np.uint8], request_id: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name="digits", id=request_id)
    request.inputs.add(name="images", datatype="UINT8", shape=[1, *image.shape])
    request.raw_input_contents.append(image.tobytes())
    return request


def _call(
    channel: grpc.Channel, key: str, request: ModelInferRequest, *more: tuple[str, str]
) -> tuple[ModelInferResponse, str]:
    """The answer, and what the cache did.

    Args:
        more: Metadata.
    """
    call = channel.unary_unary(_INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
    reply, done = call.with_call(request, metadata=(("authorization", f"Bearer {key}"), *more), timeout=30)
    return reply, str(dict(done.trailing_metadata())["x-tidegate-cache"])


def _image(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def test_a_repeated_request_is_a_hit_that_carries_its_own_id(server: Server) -> None:
    # One connection is one worker's: the cache is each worker's own.
    with grpc.insecure_channel(server.grpc) as channel:
        first, first_status = _call(channel, server.key, _request(_image(1), "first"))
        again, again_status = _call(channel, server.key, _request(_image(1), "again"))
        other, other_status = _call(channel, server.key, _request(_image(2), "other"))
        bare, bare_status = _call(channel, server.key, _request(_image(1), ""))
    assert [first_status, again_status, other_status, bare_status] == ["miss", "hit", "miss", "hit"]
    assert [first.id, again.id, other.id, bare.id] == ["first", "again", "other", ""]
    assert again.raw_output_contents == first.raw_output_contents != other.raw_output_contents


def test_rest_names_the_cache_in_a_header(server: Server, test_files: list[bytes]) -> None:
    with httpx.Client(base_url=f"http://{server.http}", headers=server.headers) as client:
        statuses = [
            client.post("/v1/models/digits/classify", content=test_files[17]).headers["x-tidegate-cache"]
            for _ in range(2)
        ]
    assert statuses[1] == "hit"


def test_a_request_with_a_different_output_is_not_the_same(server: Server) -> None:
    asked = _request(_image(3), "")
    ranked = _request(_image(3), "")
    ranked.outputs.add(name="scores").parameters["classification"].int64_param = 1
    with grpc.insecure_channel(server.grpc) as channel:
        _call(channel, server.key, asked)
        reply, status = _call(channel, server.key, ranked)
    assert status == "miss"
    assert reply.outputs[0].datatype == "BYTES"


@pytest.mark.parametrize(("directive", "status"), [("no-cache", "miss"), ("private, no-store", "bypass")])
def test_cache_control_is_kept_over_both_transports(
    server: Server, test_files: list[bytes], directive: str, status: str
) -> None:
    control = ("cache-control", directive)
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(2):
            assert _call(channel, server.key, _request(_image(4), ""), control)[1] == status
    with httpx.Client(base_url=f"http://{server.http}", headers={**server.headers, **dict([control])}) as client:
        for _ in range(2):
            answer = client.post("/v1/models/digits/classify", content=test_files[18])
            assert answer.headers["x-tidegate-cache"] == status
    several = [*server.headers.items(), ("cache-control", "private"), control]
    with httpx.Client(base_url=f"http://{server.http}", headers=several) as client:
        for _ in range(2):
            answer = client.post("/v2/models/digits_encoded/infer", content=test_files[18], headers=_RAW)
            assert answer.headers["x-tidegate-cache"] == status


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The metrics of a server of two workers after 20 calls over 10 connections: 10 answered, 10 without a key."""
    with running(tmp_path_factory.mktemp("metrics"), WORKERS="2") as server:

        async def calls() -> None:
            for seed in range(10):
                async with grpc.aio.insecure_channel(server.grpc) as channel:
                    call = channel.unary_unary(
                        _INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString
                    )
                    request = _request(_image(seed), "")
                    await call(request, metadata=(("authorization", f"Bearer {server.key}"),))
                    with pytest.raises(grpc.aio.AioRpcError):
                        await call(request)

        asyncio.run(calls())
        scraped = httpx.get(f"http://{server.metrics}/metrics")
        assert scraped.headers["content-type"].startswith("text/plain")
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in text_string_to_metric_families(scraped.text)
            for sample in family.samples
        }


def _stage_count(stage: str, model: str, version: str, outcome: str) -> str:
    labels = {"stage": stage, "model": model, "version": version, "outcome": outcome}
    return f"tidegate_stage_duration_seconds_count{sorted(labels.items())}"


def test_one_scrape_counts_the_calls_of_every_worker(counted: dict[str, float]) -> None:
    for stage in ("auth", "read", "cache", "upstream", "total"):
        assert counted[_stage_count(stage, "digits", "1", "ok")] == 10
    assert counted[_stage_count("total", "unknown", "unknown", "unauthenticated")] == 10
    assert counted["tidegate_cache_requests_total[('model', 'digits'), ('status', 'miss')]"] == 10
    assert counted["tidegate_in_flight_calls[]"] == 0


def test_stages_take_no_longer_than_the_whole(counted: dict[str, float]) -> None:
    def seconds(stage: str) -> float:
        return counted[_stage_count(stage, "digits", "1", "ok").replace("_count", "_sum", 1)]

    assert 0 < seconds("upstream") <= sum(map(seconds, ("auth", "read", "cache", "upstream"))) <= seconds("total")


def test_tritons_own_metrics_stand_beside_ours(counted: dict[str, float]) -> None:
    assert counted["tidegate_upstream_up[]"] == 1
    assert counted["nv_inference_request_success_total[('model', 'digits'), ('version', '1')]"] >= 10
