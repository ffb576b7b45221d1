"""How long the kernel lets a computing thread run, as the kernel itself says."""

import ctypes
import os
import platform
import struct
import threading

import pytest

from serving.backends import time_slice
from serving.backends.time_slice import TimeSlice

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}.get(platform.machine())
_LONG, _SHORT = 0.083, 0.0003


def _slice_ns(thread: int) -> int:
    attributes = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None, use_errno=True).syscall(_SCHED_GETATTR, thread, attributes, 56, 0) == 0
    return int(struct.unpack_from("=Q", attributes, 24)[0])


@pytest.fixture
def default() -> int:
    return _slice_ns(0)


@pytest.fixture
def slices(default: int) -> TimeSlice:
    if default == 0:
        pytest.skip("this kernel has no slices of a thread's own (Linux 6.12 has)")
    return TimeSlice()


def _run(slices: TimeSlice, seconds: float, times: int) -> None:
    for _ in range(times):
        slices.ran(seconds)


def test_a_slice_is_as_long_as_executions_for_all_threads_and_those_to_come(slices: TimeSlice, default: int) -> None:
    until = threading.Event()
    before = threading.Thread(target=until.wait)
    before.start()
    after = threading.Thread(target=until.wait)
    try:
        _run(slices, _LONG, 60)
        after.start()
        longs = {_slice_ns(thread) for thread in (os.getpid(), before.native_id or 0, after.native_id or 0)}
        _run(slices, _SHORT, 200)
        shorts = {_slice_ns(thread) for thread in (os.getpid(), before.native_id or 0, after.native_id or 0)}
    finally:
        until.set()
    assert longs == {100_000_000}
    assert shorts == {default}


def test_short_executions_leave_the_kernels_own(slices: TimeSlice, default: int) -> None:
    _run(slices, _SHORT, 10)
    assert _slice_ns(0) == default


def test_where_there_is_no_such_call_all_stays_as_it_was(default: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slice, "_SCHED_SETATTR", None)
    _run(TimeSlice(), _LONG, 60)
    assert _slice_ns(0) == default
