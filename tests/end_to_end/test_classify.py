"""Photographs over REST: one as the body, or several in a form."""

import re

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.running import Server


@pytest.fixture
def client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.http}", headers=server.headers)


def test_one_photograph_gives_its_labels_best_first(
    client: httpx.Client, test_files: list[bytes], test_labels: NDArray[np.int64]
) -> None:
    with client:
        reply = client.post("/v1/models/digits/classify?top_k=3", content=test_files[0])
    answer = reply.json()
    assert reply.status_code == 200
    assert (answer["model"], answer["version"]) == ("digits", "1")
    assert answer["predictions"][0]["label"] == str(test_labels[0])
    assert answer["predictions"][0]["index"] == test_labels[0]
    scores = [prediction["score"] for prediction in answer["predictions"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_the_answer_says_what_each_stage_took(client: httpx.Client, test_files: list[bytes]) -> None:
    with client:
        reply = client.post("/v1/models/digits/classify", content=test_files[1], headers={"cache-control": "no-cache"})
    stages = re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"])
    assert [name for name, _ in stages] == ["auth", "read", "limit", "cache", "upstream", "serialise"]
    assert 0 < sum(float(ms) for _, ms in stages) < 1_000 * reply.elapsed.total_seconds()


def test_files_of_a_form_are_answered_one_by_one(
    client: httpx.Client, test_files: list[bytes], test_labels: NDArray[np.int64]
) -> None:
    files = [("files", ("a.png", data)) for data in (test_files[0], b"not an image", test_files[2])]
    with client:
        results = client.post("/v1/models/digits/classify", files=files).json()["results"]
    assert results[1].keys() == {"error"} and "not a JPEG, PNG or WebP" in results[1]["error"]
    assert [results[i]["predictions"][0]["index"] for i in (0, 2)] == [test_labels[0], test_labels[2]]


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/v1/models/digits/classify", b"not an image", 400, "not a JPEG, PNG or WebP image"),
        ("/v1/models/digits/classify", b"", 400, "empty"),
        ("/v1/models/absent/classify", b"x", 404, "absent"),
        ("/v1/models/digits/classify?top_k=0", b"x", 400, "top_k"),
        ("/v1/models/digits/classify?version=7", b"x", 404, "7"),
    ],
)
def test_what_cannot_be_classified_is_told_why(
    client: httpx.Client, path: str, content: bytes, status: int, words: str
) -> None:
    with client:
        reply = client.post(path, content=content)
    assert reply.status_code == status
    assert words in reply.json()["error"]


def test_a_form_without_a_file_is_refused(client: httpx.Client) -> None:
    with client:
        reply = client.post("/v1/models/digits/classify", data={"files": "text"}, files={})
    assert reply.status_code == 400


def test_the_api_is_documented(client: httpx.Client) -> None:
    with client:
        paths = client.get("/openapi.json").json()["paths"]
        assert client.get("/docs").status_code == 200
    assert {"/v1/models/{model}/classify", "/v2/models/{model}/infer", "/v2/health/ready"} <= paths.keys()
