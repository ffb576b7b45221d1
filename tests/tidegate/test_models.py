"""`tidegate models`: what is in a repository, which version of it is live, and whether that answers right."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from contract.model_config import from_pbtxt
from contract.repository import ModelRepository
from tests.publishable import Publishable
from tests.running import ROOT, Server, running, tidegate
from tests.s3 import S3Server

_SEVEN = ROOT / "examples" / "seven.png"
_CATALOG_S = 10.0


@pytest.fixture
def repository(digits: Publishable, tmp_path: Path) -> ModelRepository:
    """Versions 1 and 2 of the digits; 2 is live."""
    root = tmp_path / "models"
    assert [digits.publish(root) for _ in range(2)] == [1, 2]
    return ModelRepository(root)


@pytest.fixture
def models(repository: ModelRepository, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs `tidegate models` where no server runs: status, standard output and error."""
    environment = {"TIDEGATE_STATE_DIR": str(tmp_path / "state"), "TIDEGATE_MODEL_REPOSITORY": str(repository.root)}

    def run(*arguments: str) -> tuple[int, str, str]:
        ended = tidegate("models", *arguments, environment=environment)
        return ended.returncode, ended.stdout, ended.stderr

    return run


def named(repository: ModelRepository, model: str = "digits") -> list[int]:
    """The versions that a model's config names."""
    return list(from_pbtxt(repository.config(model).read_text()).version_policy.specific.versions)


def flip_a_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def ready_versions(server: Server, model: str) -> set[str]:
    with httpx.Client(base_url=f"http://{server.http}", headers=server.headers) as client:
        index = client.post("/v2/repository/index").json()
    return {entry["version"] for entry in index if entry["name"] == model and entry["state"] == "READY"}


def version_that_answers(server: Server, *, is_not: str = "") -> str:
    """The version that classifies a picture, when each gateway worker had the time to learn of it."""
    with httpx.Client(base_url=f"http://{server.http}", headers=server.headers, timeout=30) as client:
        deadline = time.monotonic() + _CATALOG_S
        while True:
            reply = client.post("/v1/models/digits/classify", content=_SEVEN.read_bytes()).json()
            if reply.get("version", is_not) != is_not or time.monotonic() > deadline:
                assert reply["predictions"][0]["label"] == "7"
                return str(reply["version"])
            time.sleep(0.1)


def test_list_tells_which_version_is_live(models: Callable[..., tuple[int, str, str]]) -> None:
    rows = [line.split() for line in models("list")[1].splitlines() if line.startswith("digits ")]
    assert [(row[1], row[4]) for row in rows] == [("1", "yes"), ("2", "live")]


def test_show_tells_source_figures_and_digests(
    models: Callable[..., tuple[int, str, str]], digits: Publishable
) -> None:
    status, shown, _ = models("show", "digits")
    assert status == 0
    assert "digits 2" in shown and digits.draft.source.sha256 in shown
    for format_ in digits.draft.formats:
        assert format_.value in shown
    assert "  digits/2/model.onnx\n" in shown and "  digits_encoded/2/preprocessing.json\n" in shown
    assert "digits 1" in models("show", "digits", "1")[1]
    status, _, error = models("show", "digits", "7")
    assert status == 1 and "no version 7" in error and "1, 2" in error


def test_verify_names_each_file_that_is_wrong(
    models: Callable[..., tuple[int, str, str]], repository: ModelRepository
) -> None:
    assert models("verify")[:2] == (0, "digits 1: as its manifest says\ndigits 2: as its manifest says\n")
    flip_a_byte(repository.version_dir("digits", 1) / "model.bin")
    (repository.version_dir("digits_encoded", 2) / "preprocessing.json").unlink()
    status, found, _ = models("verify", "digits")
    assert status == 1
    changed, missing = found.splitlines()
    assert changed.startswith("digits/1/model.bin: SHA-256 is")
    assert missing == "digits_encoded/2/preprocessing.json: listed in the manifest, but missing"


def test_promote_and_rollback_name_the_versions_in_both_configs(
    models: Callable[..., tuple[int, str, str]], repository: ModelRepository
) -> None:
    for arguments, expected in ((("rollback", "digits"), [1]), (("promote", "digits", "2"), [1, 2])):
        status, _, error = models(*arguments)
        assert status == 0, error
        assert named(repository) == named(repository, "digits_encoded") == expected
    flip_a_byte(repository.version_dir("digits", 1) / "model.bin")
    for arguments, words in ((("promote", "digits", "1"), "digits/1/model.bin"), (("rollback", "digits"), "no good")):
        status, _, error = models(*arguments)
        assert status == 1 and words in error
        assert named(repository) == [1, 2]


def test_gc_keeps_what_is_served_and_the_newest(
    models: Callable[..., tuple[int, str, str]], repository: ModelRepository, digits: Publishable
) -> None:
    for _ in range(3):
        digits.publish(repository.root)
    models("promote", "digits", "2")
    assert named(repository) == [2]
    status, told, error = models("gc", "digits", "--keep", "1")
    assert status == 0, error
    assert told == "digits: removed 1, 3, 4; 2, 5 stay, 2 is live.\n"
    assert repository.versions("digits") == repository.versions("digits_encoded") == (2, 5)
    assert models("gc", "digits", "--keep", "0")[0] == 2


def test_a_version_with_a_wrong_byte_is_not_served_and_the_other_is(
    repository: ModelRepository, tmp_path: Path
) -> None:
    flip_a_byte(repository.version_dir("digits", 2) / "model.bin")
    with running(tmp_path / "state", MODEL_REPOSITORY=str(repository.root), WORKERS="1") as server:
        assert ready_versions(server, "digits") == ready_versions(server, "digits_encoded") == {"1"}
        assert named(repository) == named(repository, "digits_encoded") == [1]
        assert version_that_answers(server) == "1"
        banner = (server.state_dir / "banner").read_text()
        assert "not served: digits/2: " in banner and "digits/2/model.bin: SHA-256 is" in banner


def test_a_version_is_live_when_it_answers_as_the_eager_model_did(
    repository: ModelRepository, digits: Publishable, tmp_path: Path
) -> None:
    with running(
        tmp_path / "state", MODEL_REPOSITORY=str(repository.root), WORKERS="1", TRAFFIC__POLL_S="0.2"
    ) as server:
        checked = server.command("models", "check", "digits")
        assert checked.returncode == 0, checked.stderr
        assert "digits 2 answers as the eager model" in checked.stdout

        # Right digests, and not the preprocessing the model was trained with.
        preprocessing = digits.draft.card.preprocessing.model_copy(update={"interpolation": "nearest"})
        card = digits.draft.card.model_copy(update={"preprocessing": preprocessing})
        changed = Publishable(digits.draft.model_copy(update={"card": card}), digits.files)
        assert changed.publish(repository.root) == 3
        loaded = server.command("models", "load", "digits")
        assert loaded.returncode == 1
        *images, told = loaded.stderr.splitlines()
        assert images and all("(54×74) through digits_encoded: a score is off by" in line for line in images)
        assert "digits 3 fails" in told and told.endswith("digits 2 is live in its place")
        assert named(repository) == named(repository, "digits_encoded") == [2]
        assert version_that_answers(server, is_not="3") == "2"

        flip_a_byte(repository.version_dir("digits", 2) / "model.onnx")
        rolled_back = server.command("models", "rollback", "digits")
        assert rolled_back.returncode == 0, rolled_back.stderr
        assert version_that_answers(server, is_not="2") == "1"


def test_triton_serves_what_was_published_to_s3(digits: Publishable, s3: S3Server, tmp_path: Path) -> None:
    (s3.directory / "served").mkdir()
    location = f"s3://{s3.endpoint}/served/models"
    environment = {name: value for name, value in s3.environment.items() if name != "AWS_ENDPOINT_URL"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert digits.publish(location) == 1
        with running(tmp_path / "state", MODEL_REPOSITORY=location, WORKERS="1") as server:
            assert version_that_answers(server) == "1"
            assert server.command("models", "check", "digits").returncode == 0
            listed = server.command("models", "list").stdout
            assert [line.split()[-2:] for line in listed.splitlines() if line.startswith("digits ")] == [
                ["live", "READY"]
            ]
