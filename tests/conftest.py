"""What every test may use: the demo model's images, and a server that serves it."""

import io
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.mlflow_server import mlflow_server
from tests.publishable import Publishable, committed_digits
from tests.running import Server, running
from tests.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The committed repository behind two gateway workers. Tests share it: leave it as it was."""
    with running(tmp_path_factory.mktemp("server"), WORKERS="2") as started:
        yield started


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server. Tests share it: each takes buckets of its own."""
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as started:
        yield started


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[str]:
    """An MLflow server. Tests share it: each takes models of its own."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), s3) as started:
        yield started


@pytest.fixture(scope="session")
def digits_once(tmp_path_factory: pytest.TempPathFactory) -> Publishable:
    """The committed digits. Tests share them: leave them as they were."""
    return committed_digits(tmp_path_factory.mktemp("publishable") / "files")


@pytest.fixture
def digits(digits_once: Publishable, tmp_path: Path) -> Publishable:
    """A copy of `digits_once` that a test may change."""
    return Publishable(digits_once.draft, shutil.copytree(digits_once.files, tmp_path / "digits"))


@pytest.fixture(scope="session")
def test_images() -> NDArray[np.uint8]:
    """The held-out digits, (360, 32, 32, 3)."""
    return _held_out()[0]


@pytest.fixture(scope="session")
def test_labels() -> NDArray[np.int64]:
    """What they show, (360,)."""
    return _held_out()[1]


@pytest.fixture(scope="session")
def test_files(test_images: NDArray[np.uint8]) -> list[bytes]:
    """The held-out digits as PNG files."""
    return [png(image) for image in test_images]


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@cache
def _held_out() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Made here from the data set's description, and not by the code under test."""
    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)
    images = np.repeat(np.kron(grey, np.ones((1, 4, 4), np.uint8))[..., None], 3, axis=-1)
    _, test, _, labels = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=0)
    return test, labels
