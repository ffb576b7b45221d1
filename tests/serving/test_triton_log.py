"""Triton's log in ours."""

import pytest

from serving.triton_log import TritonLog
from tests.serving.events import Events

PREFIX = "1123 14:40:34.870575 7125 server.cc:241]"


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        (f'I{PREFIX} "loading: m:1"', "info", "loading: m:1"),
        (f'W{PREFIX} "slow"', "warning", "slow"),
        (f'E{PREFIX} "failed to load all models"', "error", "failed to load all models"),
        (f'W{PREFIX} "DCGM unable to start: DCGM initialization error"', "debug", "DCGM unable to start: DCGM initialization error"),
        (f'E{PREFIX} "CudaDriverHelper has not been initialized."', "debug", "CudaDriverHelper has not been initialized."),
        ("Error: Failed to initialize NVML", "debug", "Error: Failed to initialize NVML"),
        ("+----+", "debug", "+----+"),
    ],
)  # fmt: skip
def test_levels(events: Events, line: str, level: str, message: str) -> None:
    assert TritonLog().relay(line) == message
    assert [(event["level"], event["message"]) for event in events.seen] == [(level, message)]


def test_errors_are_remembered_but_not_those_of_a_missing_gpu() -> None:
    log = TritonLog()
    for line in ('"first"', '"DCGM unable to start"', '"second"'):
        log.relay(f"E{PREFIX} {line}")
    assert log.last_errors == ("first", "second")


def test_why_a_config_could_not_be_read_is_remembered() -> None:
    log = TritonLog()
    log.relay(
        "[libprotobuf ERROR /x/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:37: no field."
    )
    log.relay(
        f"E{PREFIX} \"Poll failed for model directory 'bad': failed to read text proto from /r/bad/config.pbtxt\""
    )
    assert log.unreadable_models == {"bad": "failed to read text proto from /r/bad/config.pbtxt: 1:37: no field."}
