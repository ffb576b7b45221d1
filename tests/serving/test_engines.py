"""The backends of the three engines, in a real Triton."""

import asyncio

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient as Client
from tritonclient.grpc.aio import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from serving.triton import EmbeddedTriton
from tests.serving import models
from tests.serving.infer import executions, floats, infer

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.mark.parametrize("model", ["doubling", "doubling_ir"])
async def test_a_config_with_only_a_backend_is_completed(client: Client, model: str) -> None:
    config = (await client.get_model_config(model)).config
    assert config.max_batch_size == 32
    assert config.HasField("dynamic_batching")
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 11, [3])]
    assert sorted((t.name, t.data_type, list(t.dims)) for t in config.output) == [
        ("doubled", 11, [3]),
        ("next", 11, [3]),
    ]


@pytest.mark.parametrize("model", ["doubling", "doubling_ir"])
async def test_outputs_are_those_of_the_model(client: Client, model: str) -> None:
    answer = await infer(client, model, {"x": X}, ["next", "doubled"])
    np.testing.assert_array_equal(answer["doubled"], X * 2)
    np.testing.assert_array_equal(answer["next"], X + 1)


async def test_only_the_outputs_asked_for_are_returned(client: Client) -> None:
    made = InferInput("x", [2, 3], "FP32").set_data_from_numpy(X)
    result = await client.infer("doubling", [made], outputs=[InferRequestedOutput("next")])
    assert [output.name for output in result.get_response().outputs] == ["next"]


async def test_a_model_with_a_fixed_batch_is_served_request_by_request(client: Client) -> None:
    assert (await client.get_model_config("single")).config.max_batch_size == 0
    answers = await asyncio.gather(*(infer(client, "single", {"x": X[:1] + i}, ["next"]) for i in range(4)))
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["next"], X[:1] + i + 1)


async def test_every_type_is_served(client: Client) -> None:
    sent = models.every_type()
    answer = await infer(
        client, "echo", {f"in_{name}": array for name, array in sent.items()}, [f"out_{name}" for name in sent]
    )
    for name, array in sent.items():
        np.testing.assert_array_equal(answer[f"out_{name}"], array, err_msg=name)
        assert answer[f"out_{name}"].dtype == array.dtype


async def test_a_string_that_is_not_utf8_is_refused(client: Client) -> None:
    sent = {f"in_{name}": array for name, array in models.every_type().items()}
    sent["in_BYTES"] = np.array([[b"\xff", b""], [b"", b""]], dtype=np.object_)
    with pytest.raises(InferenceServerException, match="input 'in_BYTES': a string is not UTF-8"):
        await infer(client, "echo", sent, ["out_BYTES"])


async def test_torchscript_inputs_are_forwards_arguments_whatever_the_configs_order(client: Client) -> None:
    left, right = floats([[5, 6]]), floats([[1, 2]])
    answer = await infer(client, "sums", {"right": right, "left": left}, ["OUTPUT__0", "OUTPUT__1"])
    np.testing.assert_array_equal(answer["OUTPUT__0"], left + right)
    np.testing.assert_array_equal(answer["OUTPUT__1"], left - right)


async def test_concurrent_requests_share_executions(client: Client) -> None:
    before = await executions(client, models.CARD.name)
    images = [np.full((1, 8, 8, 3), i, np.uint8) for i in range(64)]
    answers = await asyncio.gather(
        *(infer(client, models.CARD.name, {"images": image}, ["scores"]) for image in images)
    )
    after = await executions(client, models.CARD.name, before[0] + 64)
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["scores"], np.full((1, 3), i, np.float32))
    assert after[0] - before[0] == 64
    # The model waits 50 ms for a batch of 64: eight executions leave room for a busy machine.
    assert after[1] - before[1] <= 8


async def test_one_bad_request_of_a_batch_fails_alone(client: Client) -> None:
    before = await executions(client, "lookup")
    ids = [np.array([[i, i + 1]], np.int64) for i in range(7)] + [np.array([[3, 99]], np.int64)]
    answers = await asyncio.gather(
        *(infer(client, "lookup", {"ids": each}, ["values"]) for each in ids), return_exceptions=True
    )
    for i, answer in enumerate(answers[:7]):
        assert isinstance(answer, dict), answer
        np.testing.assert_array_equal(answer["values"], floats([[i * i, (i + 1) ** 2]]))
    assert isinstance(answers[7], InferenceServerException)
    assert "out of data bounds" in str(answers[7])
    assert (await executions(client, "lookup", before[0] + 7))[1] - before[1] < len(ids)


async def test_requests_of_different_shapes_share_an_execution(client: Client) -> None:
    before = await executions(client, "lookup")
    ids = [np.full((1, 1 + i % 3), i, np.int64) for i in range(8)]
    answers = await asyncio.gather(*(infer(client, "lookup", {"ids": each}, ["values"]) for each in ids))
    for each, answer in zip(ids, answers, strict=True):
        np.testing.assert_array_equal(answer["values"], each**2)
    assert (await executions(client, "lookup", before[0] + len(ids)))[1] - before[1] < len(ids)


async def test_a_bad_model_gives_its_reason_while_others_serve(triton: EmbeddedTriton) -> None:
    reasons = await triton.unavailable_models()
    assert set(reasons) == {"misstated/1", "untyped/1", "halved/1", "unparsable"}
    assert "'precision' is 'fp16', which needs an instance on a GPU" in reasons["halved/1"]
    assert (
        "input 'x': config.pbtxt states the shape [-1, 4] with the batch dimension, the model file has [-1, 3]"
        in reasons["misstated/1"]
    )
    assert 'no field named "max_batch"' in reasons["unparsable"]
    assert "a TorchScript file states no types and shapes: config.pbtxt must, for the inputs 'left', 'right'" in (
        reasons["untyped/1"]
    )
