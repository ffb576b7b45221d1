"""Photographs through a real Triton."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc.aio import InferenceServerClient as Client
from tritonclient.grpc.aio import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from contract.card import Card, ImageLimits
from serving.triton import EmbeddedTriton
from tests.serving import models
from tests.serving.infer import Array, executions, floats, infer
from tests.serving.photographs import encode, flat

MODEL = models.CARD.encoded_name
COLOURS = [(10 * i, 100, 200 - 10 * i) for i in range(8)]
PHOTOGRAPHS = [encode(Image.fromarray(flat(colour)), "PNG") for colour in COLOURS]


def column(files: list[bytes]) -> dict[str, Array]:
    return {"encoded": np.array(files, dtype=np.object_).reshape(-1, 1)}


async def test_one_corrupt_image_leaves_seven_answers_and_one_named_error(client: Client) -> None:
    files = [*PHOTOGRAPHS]
    files[3] = files[3][: len(files[3]) // 2]
    answer = await infer(client, MODEL, column(files), ["scores", "error"])
    served = [i for i in range(8) if i != 3]
    np.testing.assert_array_equal(answer["scores"][served], floats(COLOURS)[served])
    assert np.isnan(answer["scores"][3]).all()
    assert answer["error"].shape == (8, 1)
    assert [answer["error"][i, 0] for i in served] == [b""] * 7
    assert answer["error"][3, 0].startswith(b"truncated or damaged PNG: ")


async def test_requests_are_decoded_and_scored_together(client: Client) -> None:
    before = await executions(client, MODEL), await executions(client, models.CARD.name)
    files = [*PHOTOGRAPHS, b"no image"]
    answers = await asyncio.gather(
        *(infer(client, MODEL, column([file]), ["scores", "error"]) for file in files for _ in range(3))
    )
    for i, answer in enumerate(answers[:24]):
        np.testing.assert_array_equal(answer["scores"], floats([COLOURS[i // 3]]))
    assert all(answer["error"][0, 0] == b"not a JPEG, PNG or WebP image" for answer in answers[24:])
    after = (
        await executions(client, MODEL, before[0][0] + 27),
        await executions(client, models.CARD.name, before[1][0] + 24),
    )
    assert (after[0][0] - before[0][0], after[1][0] - before[1][0]) == (27, 24)
    # Each of two instances waits 50 ms for a batch of 64: half as many executions leave room for a busy machine.
    assert after[0][1] - before[0][1] <= 13
    assert after[1][1] - before[1][1] <= after[0][1] - before[0][1]


async def test_the_model_is_not_asked_where_no_image_is_good(client: Client) -> None:
    before = await executions(client, models.CARD.name)
    answer = await infer(client, MODEL, column([b"no image"]), ["scores", "error"])
    assert np.isnan(answer["scores"]).all()
    assert answer["error"][0, 0] == b"not a JPEG, PNG or WebP image"
    assert await executions(client, models.CARD.name) == before


async def test_only_the_scores_may_be_asked_for(client: Client) -> None:
    answer = await infer(client, MODEL, column(PHOTOGRAPHS), ["scores"])
    np.testing.assert_array_equal(answer["scores"], floats(COLOURS))


async def test_labels_come_with_the_best_scores(client: Client) -> None:
    made = InferInput("encoded", [1, 1], "BYTES").set_data_from_numpy(column(PHOTOGRAPHS[:1])["encoded"])
    wanted = InferRequestedOutput("scores", class_count=1)
    result = await client.infer(MODEL, [made], outputs=[wanted])
    assert result.as_numpy("scores").ravel().tolist() == [b"200.000000:2:blue"]


async def test_the_models_fault_is_the_error_of_the_requests_it_concerns(
    tmp_path: Path, embed: Callable[..., EmbeddedTriton]
) -> None:
    card = Card(
        name="channels",
        labels=("red", "green", "blue"),
        preprocessing=models.CARD.preprocessing,
        image_limits=ImageLimits(max_pixels=400),
    )
    models.write_channels(tmp_path, card)
    async with embed(tmp_path) as triton, Client(triton.grpc_address) as client:
        large = encode(Image.fromarray(flat((0, 0, 0), 32)), "PNG")
        answer = await infer(client, card.encoded_name, column([large]), ["error"])
        assert answer["error"][0, 0].decode() == "32×32 pixels, limit 400"
        await client.unload_model(card.name)
        with pytest.raises(InferenceServerException, match="channels"):
            await infer(client, card.encoded_name, column(PHOTOGRAPHS[:1]), ["scores"])
        answer = await infer(client, card.encoded_name, column([large]), ["error"])
        assert answer["error"][0, 0].decode() == "32×32 pixels, limit 400"
