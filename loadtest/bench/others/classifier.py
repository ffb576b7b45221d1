"""What each of the other servers runs: the photograph of J to its five best labels, decoded and scored as by the limit.

It needs none of Tidegate's dependencies but OpenVINO, Pillow and NumPy.
"""

import io
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image

TOP_K = 5
# Where servers find the repository with `resnet50` and its twin.
MODELS = "TIDEGATE_BENCH_MODELS"


class Classifier:
    """ResNet-50 in 8 bits on OpenVINO.

    Args:
        streams: Batches at once; each has a thread.
    """

    def __init__(self, streams: int = 1) -> None:
        models = Path(os.environ[MODELS])
        self._preprocessing = json.loads((models / "resnet50_encoded" / "1" / "preprocessing.json").read_text())
        self._labels = (models / "resnet50_encoded" / "labels.txt").read_text().splitlines()
        properties = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": streams,
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": "f32",
            # Several processes would pin themselves to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = openvino.Core().compile_model(models / "resnet50" / "1" / "model.xml", "CPU", properties)
        self._thread = threading.local()

    def labels(self, files: Sequence[bytes]) -> list[str]:
        """Classify N files together; from any thread.

        Returns:
            For each, its best labels and their scores in JSON.
        """
        if not hasattr(self._thread, "request"):
            self._thread.request = self._model.create_infer_request()
        request = self._thread.request
        request.infer({0: np.stack([decoded(file, self._preprocessing) for file in files])}, share_inputs=True)
        return [self._best(scores) for scores in request.get_output_tensor(0).data]

    def _best(self, scores: NDArray[np.float32]) -> str:
        best = np.argsort(scores)[: -TOP_K - 1 : -1]
        return json.dumps([{"label": self._labels[index], "score": float(scores[index])} for index in best])


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
