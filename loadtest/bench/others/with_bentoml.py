"""BentoML, a worker a core, and no batches: with its adaptive ones a photograph alone took 415 ms."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from loadtest.bench.others.classifier import classifier


@bentoml.service(workers=len(os.sched_getaffinity(0)), traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Files:
    def __init__(self) -> None:
        self._classifier = classifier()

    @bentoml.api
    def classify(self, file: Annotated[Path, ContentType("image/jpeg")], /) -> str:
        (answer,) = self._classifier.answers([file.read_bytes()])
        return answer
