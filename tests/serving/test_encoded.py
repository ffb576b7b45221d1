"""Photographs through a real Triton."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import psutil
import pytest
from PIL import Image
from tritonclient.grpc.aio import InferenceServerClient as Client
from tritonclient.grpc.aio import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from contract.card import ImageLimits
from serving.triton import EmbeddedTriton
from tests.serving import models
from tests.serving.infer import Array, executions, floats, infer
from tests.serving.photographs import encode, flat, scan_bomb

MODEL = models.CARD.encoded_name
_STRICT = models.CARD.model_copy(update={"name": "strict", "image_limits": ImageLimits(max_pixels=400)})
_LENIENT = models.CARD.model_copy(
    update={"name": "lenient", "image_limits": ImageLimits(max_pixels=400, truncated="serve")}
)
_SHARED = models.CARD.model_copy(update={"name": "shared"})
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
    asking, asked = models.ASKING.encoded_name, models.ASKING.name
    before = await executions(client, asking), await executions(client, asked)
    files = [*PHOTOGRAPHS, b"no image"]
    answers = await asyncio.gather(
        *(infer(client, asking, column([file]), ["scores", "error"]) for file in files for _ in range(3))
    )
    for i, answer in enumerate(answers[:24]):
        np.testing.assert_array_equal(answer["scores"], floats([COLOURS[i // 3]]))
    assert all(answer["error"][0, 0] == b"not a JPEG, PNG or WebP image" for answer in answers[24:])
    after = (
        await executions(client, asking, before[0][0] + 27),
        await executions(client, asked, before[1][0] + 24),
    )
    assert (after[0][0] - before[0][0], after[1][0] - before[1][0]) == (27, 24)
    # Each instance waits 50 ms for a batch of 64: half as many executions leave room for a busy machine.
    assert after[0][1] - before[0][1] <= 13
    assert after[1][1] - before[1][1] <= after[0][1] - before[0][1]


async def test_the_model_is_not_asked_where_no_image_is_good(client: Client) -> None:
    before = await executions(client, models.ASKING.name)
    answer = await infer(client, models.ASKING.encoded_name, column([b"no image"]), ["scores", "error"])
    assert np.isnan(answer["scores"]).all()
    assert answer["error"][0, 0] == b"not a JPEG, PNG or WebP image"
    assert await executions(client, models.ASKING.name) == before


async def test_the_model_is_not_asked_where_its_file_is_loaded_with_the_photographs(client: Client) -> None:
    before = await executions(client, models.CARD.name)
    answer = await infer(client, MODEL, column(PHOTOGRAPHS), ["scores"])
    np.testing.assert_array_equal(answer["scores"], floats(COLOURS))
    assert await executions(client, models.CARD.name) == before


async def test_only_the_scores_may_be_asked_for(client: Client) -> None:
    answer = await infer(client, MODEL, column(PHOTOGRAPHS), ["scores"])
    np.testing.assert_array_equal(answer["scores"], floats(COLOURS))


async def test_labels_come_with_the_best_scores(client: Client) -> None:
    made = InferInput("encoded", [1, 1], "BYTES").set_data_from_numpy(column(PHOTOGRAPHS[:1])["encoded"])
    wanted = InferRequestedOutput("scores", class_count=1)
    result = await client.infer(MODEL, [made], outputs=[wanted])
    assert result.as_numpy("scores").ravel().tolist() == [b"200.000000:2:blue"]


@pytest.fixture(scope="module")
async def other(
    tmp_path_factory: pytest.TempPathFactory, embed: Callable[..., EmbeddedTriton]
) -> AsyncIterator[Client]:
    """A Triton with models that have a limit of pixels, one of which serves what is truncated, and one of four threads."""
    repository = tmp_path_factory.mktemp("other")
    models.write_channels(repository, _STRICT, engine=False)
    models.write_channels(repository, _LENIENT)
    models.write_channels(repository, _SHARED, engine=False, threads=4)
    async with embed(repository) as triton, Client(triton.grpc_address) as client:
        yield client


async def test_what_is_truncated_is_served_where_the_model_says_so(other: Client) -> None:
    # Two thirds of the rows are there, and the rest is black.
    noise = np.random.default_rng(0).integers(100, 256, (20, 20, 3), np.uint8)
    file = encode(Image.fromarray(noise), "PNG")
    files = column([file[: len(file) * 2 // 3]])
    refused = await infer(other, _STRICT.encoded_name, files, ["scores", "error"])
    served = await infer(other, _LENIENT.encoded_name, files, ["scores", "error"])
    assert refused["error"][0, 0].startswith(b"truncated or damaged PNG") and np.isnan(refused["scores"]).all()
    assert served["error"][0, 0] == b"" and (50 < served["scores"]).all() and (served["scores"] < 178).all()


async def test_bombs_are_told_from_photographs_one_by_one(other: Client) -> None:
    square = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + b"IHDR" + square + struct.pack(">I", zlib.crc32(b"IHDR" + square))
    square_png = b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    files = [PHOTOGRAPHS[0], square_png, scan_bomb(50_000), PHOTOGRAPHS[1]]
    resident = []
    for _ in range(2):
        for _ in range(10):
            answer = await infer(other, _STRICT.encoded_name, column(files), ["scores", "error"])
            errors = [error.decode() for error in answer["error"].ravel()]
            assert errors == ["", "60000×60000 pixels, limit 400", "more than 100 scans", ""]
            np.testing.assert_array_equal(answer["scores"][[0, 3]], floats(COLOURS[:2]))
        resident.append(_resident_bytes(_STRICT.encoded_name))
    assert resident[1] <= 1.05 * resident[0]


async def test_a_batch_is_decoded_on_as_many_threads_as_an_instance_has(other: Client) -> None:
    before = {process: process.num_threads() for process in _processes(_SHARED.encoded_name)}
    large = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)), "PNG")
    # Several requests, as an instance is not alone then.
    await asyncio.gather(*(infer(other, _SHARED.encoded_name, column([large] * 4), ["scores"]) for _ in range(3)))
    assert max(process.num_threads() - threads for process, threads in before.items()) == 4


def _resident_bytes(model: str) -> int:
    return sum(process.memory_info().rss for process in _processes(model))


def _processes(model: str) -> list[psutil.Process]:
    """Those of a model's instances."""
    found = [child for child in psutil.Process().children(recursive=True) if f"/{model}/" in " ".join(child.cmdline())]
    assert found
    return found


async def test_the_models_fault_is_the_error_of_the_requests_it_concerns(other: Client) -> None:
    large = encode(Image.fromarray(flat((0, 0, 0), 32)), "PNG")
    answer = await infer(other, _STRICT.encoded_name, column([large]), ["error"])
    assert answer["error"][0, 0].decode() == "32×32 pixels, limit 400"
    await other.unload_model(_STRICT.name)
    with pytest.raises(InferenceServerException, match="strict"):
        await infer(other, _STRICT.encoded_name, column(PHOTOGRAPHS[:1]), ["scores"])
    answer = await infer(other, _STRICT.encoded_name, column([large]), ["error"])
    assert answer["error"][0, 0].decode() == "32×32 pixels, limit 400"
