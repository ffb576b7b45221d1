"""The first promise: what the eager checkpoint says, the server says."""

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray

from export.load import load_checkpoint
from export.served import ServedModel
from tests.running import ROOT, Server, encoded_input, images_input

_BATCH = 32
_MIN_ACCURACY = 0.98


@pytest.fixture(scope="module")
def eager_labels(test_images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The labels of the committed checkpoint, run by PyTorch without any export."""
    checkpoint = load_checkpoint(ROOT / "tests" / "data" / "digits.ckpt")
    model = ServedModel(checkpoint.network, checkpoint.card.preprocessing).eval()
    with torch.inference_mode():
        labels: NDArray[np.int64] = model(torch.from_numpy(test_images)).argmax(dim=1).numpy()
    return labels


def test_tensors_in_batches_give_the_labels_of_the_eager_checkpoint(
    server: Server, test_images: NDArray[np.uint8], test_labels: NDArray[np.int64], eager_labels: NDArray[np.int64]
) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        scores = [
            client.infer("digits", images_input(test_images[start : start + _BATCH]), headers=server.headers).as_numpy(
                "scores"
            )
            for start in range(0, len(test_images), _BATCH)
        ]
    labels = np.concatenate(scores).argmax(axis=1)
    np.testing.assert_array_equal(labels, eager_labels)
    assert (labels == test_labels).mean() >= _MIN_ACCURACY


def test_png_files_in_batches_give_the_labels_of_the_eager_checkpoint(
    server: Server, test_files: list[bytes], eager_labels: NDArray[np.int64]
) -> None:
    labels, errors = [], []
    with triton.InferenceServerClient(server.grpc) as client:
        for start in range(0, len(test_files), _BATCH):
            reply = client.infer(
                "digits_encoded", encoded_input(test_files[start : start + _BATCH]), headers=server.headers
            )
            labels.extend(reply.as_numpy("scores").argmax(axis=1))
            errors.extend(reply.as_numpy("error").ravel())
    np.testing.assert_array_equal(labels, eager_labels)
    assert set(errors) == {b""}


def test_one_corrupt_image_among_eight_is_named_and_the_others_are_served(
    server: Server, test_files: list[bytes], eager_labels: NDArray[np.int64]
) -> None:
    files = test_files[:8]
    files[3] = files[3][:40] + b"\0" * (len(files[3]) - 40)
    with triton.InferenceServerClient(server.grpc) as client:
        reply = client.infer("digits_encoded", encoded_input(files), headers=server.headers)
    scores, errors = reply.as_numpy("scores"), reply.as_numpy("error").ravel()
    assert [bool(error) for error in errors] == [False] * 3 + [True] + [False] * 4
    assert b"PNG" in errors[3] or b"image" in errors[3]
    assert np.isnan(scores[3]).all()
    served = [row for row in range(8) if row != 3]
    np.testing.assert_array_equal(scores[served].argmax(axis=1), eager_labels[served])


def test_classification_parameter_gives_labels(server: Server, test_images: NDArray[np.uint8]) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        reply = client.infer(
            "digits",
            images_input(test_images[:1]),
            outputs=[triton.InferRequestedOutput("scores", class_count=3)],
            headers=server.headers,
        )
    ranked = [text.decode().split(":") for text in reply.as_numpy("scores").ravel()]
    assert len(ranked) == 3
    assert all(index == label for _, index, label in ranked)
    assert [float(score) for score, _, _ in ranked] == sorted((float(score) for score, _, _ in ranked), reverse=True)
