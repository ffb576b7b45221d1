"""BentoML, a worker a core, and no batches: with its adaptive ones a photograph alone took 415 ms."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from loadtest.bench.others.classifier import Classifier


@bentoml.service(workers=len(os.sched_getaffinity(0)), traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Photographs:
    def __init__(self) -> None:
        self._classifier = Classifier()

    @bentoml.api
    def classify(self, file: Annotated[Path, ContentType("image/jpeg")], /) -> str:
        (labels,) = self._classifier.labels([file.read_bytes()])
        return labels
