"""LitServe, a worker a core, and batches."""

import os
import sys
from typing import Any

import litserve
from fastapi import Request, Response

from loadtest.bench.others.classifier import batch_size, classifier


class Files(litserve.LitAPI):
    """Takes a form, which is how LitServe takes files."""

    def setup(self, device: str) -> None:
        self._classifier = classifier()

    def decode_request(self, request: Request) -> bytes:
        form: Any = request  # It is one by then.
        return bytes(form["files"].file.read())

    def predict(self, batch: list[bytes]) -> list[str]:
        return self._classifier.answers(batch)

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> Any:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Files(max_batch_size=batch_size(), batch_timeout=0.01, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=len(os.sched_getaffinity(0)))
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning", access_log=False
    )
