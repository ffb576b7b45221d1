"""What each of the other servers runs: files in, an answer in JSON for each, scored as by the limit.

It needs none of Tidegate's dependencies but OpenVINO, Pillow and NumPy.
"""

import io
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image

TOP_K = 5
# J or S, which servers are told of.
WORKLOAD = "TIDEGATE_BENCH_WORKLOAD"
# Where they find the repository with `resnet50` and its twin, and with `digits`.
MODELS = "TIDEGATE_BENCH_MODELS"
TINY_SHAPE = (32, 32, 3)


class Classifier(ABC):
    """A model on OpenVINO.

    Args:
        streams: Batches at once; each has a thread.
    """

    model: ClassVar[str]

    def __init__(self, streams: int = 1) -> None:
        properties = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": streams,
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": "f32",
            # Several processes would pin themselves to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = openvino.Core().compile_model(_models() / self.model / "1" / "model.xml", "CPU", properties)
        self._thread = threading.local()

    def answers(self, files: Sequence[bytes]) -> list[str]:
        """Answer N files together in JSON; from any thread."""
        if not hasattr(self._thread, "request"):
            self._thread.request = self._model.create_infer_request()
        request = self._thread.request
        request.infer({0: np.stack([self.image(file) for file in files])}, share_inputs=True)
        return [self.answer(scores) for scores in request.get_output_tensor(0).data]

    @abstractmethod
    def image(self, file: bytes) -> NDArray[np.uint8]:
        """The model's input, (height, width, 3)."""

    @abstractmethod
    def answer(self, scores: NDArray[np.float32]) -> str:
        """JSON of its output."""


class Photographs(Classifier):
    """J: a JPEG to its best labels and their scores, by ResNet-50 in 8 bits."""

    model = "resnet50"

    def __init__(self, streams: int = 1) -> None:
        super().__init__(streams)
        twin = _models() / "resnet50_encoded"
        self._preprocessing = json.loads((twin / "1" / "preprocessing.json").read_text())
        self._labels = (twin / "labels.txt").read_text().splitlines()

    def image(self, file: bytes) -> NDArray[np.uint8]:
        return decoded(file, self._preprocessing)

    def answer(self, scores: NDArray[np.float32]) -> str:
        best = np.argsort(scores)[: -TOP_K - 1 : -1]
        return json.dumps([{"label": self._labels[index], "score": round(float(scores[index]), 3)} for index in best])


class Tiny(Classifier):
    """S: the bytes of 32 × 32 × 3 to the scores of `digits`."""

    model = "digits"

    def image(self, file: bytes) -> NDArray[np.uint8]:
        return np.frombuffer(file, np.uint8).reshape(TINY_SHAPE)

    def answer(self, scores: NDArray[np.float32]) -> str:
        return json.dumps([round(float(score), 3) for score in scores])


def classifier(streams: int = 1) -> Classifier:
    """That of the workload that this process was told of."""
    return {"J": Photographs, "S": Tiny}[os.environ[WORKLOAD]](streams)


def batch_size() -> int:
    """How many are answered together, as Tidegate's model says."""
    return {"J": 4, "S": 8}[os.environ[WORKLOAD]]


def _models() -> Path:
    return Path(os.environ[MODELS])


def decoded(file: bytes, preprocessing: Mapping[str, Any]) -> NDArray[np.uint8]:
    """What `serving.images.prepare` makes of a JPEG that is not several times larger, (height, width, 3)."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = preprocessing["width"], preprocessing["height"]
    ratio = preprocessing["shorter_side"] / min(image.size)
    scaled = round(image.width * ratio), round(image.height * ratio)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    by_x, by_y = image.width / scaled[0], image.height / scaled[1]
    box = (left * by_x, top * by_y, (left + width) * by_x, (top + height) * by_y)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
