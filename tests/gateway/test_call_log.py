import pytest
from structlog.testing import capture_logs

from gateway.errors import Overloaded
from gateway.metrics.call_log import CallLog
from gateway.metrics.observation import CallObservation, outcome_of
from gateway.metrics.settings import CallLogSettings
from tests.gateway.fakes import Clock


def _write(log: CallLog, error: Exception | None = None, request_id: str = "") -> None:
    observation = CallObservation(lambda ended, outcome: None)
    observation.asked(request_id, 10, 1)
    log.ended(observation, outcome_of(error), observation.started + 0.25)


@pytest.mark.parametrize(("calls", "written"), [("errors", ["overloaded"]), ("all", ["ok", "overloaded"])])
def test_the_settings_say_which_calls_are_written(calls: str, written: list[str], clock: Clock) -> None:
    log = CallLog(CallLogSettings.model_validate({"calls": calls}), clock)
    with capture_logs() as lines:
        _write(log)
        _write(log, Overloaded("full"))
    assert [line["outcome"] for line in lines] == written
    assert [line["total_ms"] for line in lines] == [250.0] * len(written)


def test_of_answered_calls_a_share_is_written_and_of_failed_ones_all(clock: Clock) -> None:
    log = CallLog(CallLogSettings.model_validate({"calls": "all", "sample": 0}), clock)
    with capture_logs() as lines:
        for _ in range(10):
            _write(log)
            _write(log, Overloaded("full"))
    assert [line["outcome"] for line in lines] == ["overloaded"] * 10


def test_so_many_lines_a_second_and_the_next_says_how_many_were_left_out(clock: Clock) -> None:
    log = CallLog(CallLogSettings.model_validate({"calls": "all", "max_per_s": 2}), clock)
    with capture_logs() as lines:
        for _ in range(5):
            _write(log)
        clock.now += 1
        _write(log)
    assert [line.get("left_out") for line in lines] == [None, None, 3]


def test_a_long_id_is_cut(clock: Clock) -> None:
    with capture_logs() as lines:
        _write(CallLog(CallLogSettings.model_validate({"calls": "all"}), clock), request_id="x" * 1_000)
    assert len(lines[0]["request_id"]) == 128
