"""What no honest client sends leaves nothing behind."""

import time

import psutil

from tests.conformance import test_hostile as hostile
from tests.conformance.conftest import Gateway

_SETTLE_S = 3


def test_memory_is_back_when_it_comes_again(gateway: Gateway) -> None:
    """Within 5 % of what it was after the first two times."""
    process = psutil.Process(gateway.pid)
    for _ in range(2):
        _everything(gateway)
    before = _settled(process, 0)
    _everything(gateway)
    after = _settled(process, 1.05 * before)
    assert after <= 1.05 * before, f"{before} bytes before, {after} after"


def _everything(gateway: Gateway) -> None:
    hostile.test_a_grpc_message_that_grows_a_thousandfold(gateway)
    hostile.test_a_body_that_grows_a_thousandfold(gateway)
    hostile.test_json_nested_in_500_000_levels(gateway, b"[")
    hostile.test_100_000_outputs(gateway)
    hostile.test_lengths_that_lie(gateway, b"\x0a\x04echo\x3a\x05ab")
    hostile.test_a_million_chunks_of_one_byte(gateway)
    hostile.test_10_megabytes_of_headers(gateway, b"x: " + b"y" * 10_000_000)
    hostile.test_10_megabytes_around_a_body(gateway, b"1\r\n{\r\n0\r\nx: y\r\n")
    hostile.test_too_much_metadata(gateway)
    hostile.test_a_head_that_does_not_come(gateway, b"GET /v2 HTT")
    hostile.test_a_grpc_message_that_does_not_come(gateway)
    hostile.test_calls_that_are_opened_and_reset_at_once(gateway)


def _settled(process: psutil.Process, enough: float) -> int:
    """The resident bytes, when they are few enough or have stopped to fall."""
    lowest, since = process.memory_info().rss, time.monotonic()
    while lowest > enough and time.monotonic() < since + _SETTLE_S:
        time.sleep(0.1)
        now = process.memory_info().rss
        if now < 0.99 * lowest:
            since = time.monotonic()
        lowest = min(lowest, now)
    return lowest
