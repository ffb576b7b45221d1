"""LitServe, a worker a core, and batches of up to four."""

import os
import sys
from typing import Any

import litserve
from fastapi import Request, Response

from loadtest.bench.others.classifier import Classifier


class Photographs(litserve.LitAPI):
    """Takes a form, which is how LitServe takes files."""

    def setup(self, device: str) -> None:
        self._classifier = Classifier()

    def decode_request(self, request: Request) -> bytes:
        form: Any = request  # It is one by then.
        return bytes(form["files"].file.read())

    def predict(self, batch: list[bytes]) -> list[str]:
        return self._classifier.labels(batch)

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> Any:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Photographs(max_batch_size=4, batch_timeout=0.01, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=len(os.sched_getaffinity(0)))
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning", access_log=False
    )
