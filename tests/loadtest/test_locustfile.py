import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient.grpc.service_pb2 import ModelMetadataResponse

from loadtest.requests import random_images
from tests.running import ROOT, Server


def _locust(server: Server, output: Path) -> dict[str, str]:
    """Run a short load; the figures of all its requests."""
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", server.grpc, "--headless"]
    subprocess.run(
        [*command, "-u", "4", "-r", "4", "-t", "3s", "--csv", str(output), "--only-summary", "--skip-log"],
        cwd=ROOT,
        env={**os.environ, "TIDEGATE_LOAD_KEY": server.key, "TIDEGATE_LOAD_BATCH_SIZE": "4"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    with Path(f"{output}_stats.csv").open() as file:
        return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")


def test_a_load_of_four_users_is_served(server: Server, tmp_path: Path) -> None:
    figures = _locust(server, tmp_path / "load")
    assert int(figures["Request Count"]) > 20
    assert figures["Failure Count"] == "0"
    assert float(figures["Median Response Time"]) > 0


def _metadata(datatype: str, shape: list[int]) -> ModelMetadataResponse:
    response = ModelMetadataResponse(name="m")
    response.inputs.add(name="images", datatype=datatype, shape=shape)
    return response


def test_requests_are_distinct_and_of_the_models_shape() -> None:
    requests = random_images(_metadata("UINT8", [-1, 4, 6, 3]), batch_size=2, distinct=3)
    assert len({request.raw_input_contents[0] for request in requests}) == 3
    assert list(requests[0].inputs[0].shape) == [2, 4, 6, 3]
    assert len(requests[0].raw_input_contents[0]) == 2 * 4 * 6 * 3


@pytest.mark.parametrize(
    ("datatype", "shape"), [("FP32", [-1, 4, 4, 3]), ("BYTES", [-1, 1]), ("UINT8", [-1, -1, -1, 3])]
)
def test_a_model_of_something_else_is_refused(datatype: str, shape: list[int]) -> None:
    with pytest.raises(ValueError, match="'m'"):
        random_images(_metadata(datatype, shape), batch_size=1, distinct=1)
