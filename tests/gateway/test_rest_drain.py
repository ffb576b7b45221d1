"""What callers of REST see of a worker that is told to end."""

import http.client
import os
import signal
import threading
from pathlib import Path

from tests.worker import worker

_CALLERS = 8


def test_open_connections_are_told_which_answer_is_their_last(tmp_path: Path) -> None:
    endings: list[int] = []

    def ask(address: str, asked: threading.Semaphore) -> None:
        host, port = address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        while True:
            connection.request("GET", "/v2/health/live")
            reply = connection.getresponse()
            reply.read()
            asked.release()
            if reply.getheader("connection") == "close":
                connection.close()
                endings.append(reply.status)
                return

    with worker(tmp_path) as running:
        asked = threading.Semaphore(0)
        callers = [threading.Thread(target=ask, args=(running.http, asked)) for _ in range(_CALLERS)]
        for caller in callers:
            caller.start()
        for _ in range(10 * _CALLERS):
            asked.acquire()
        os.kill(running.pid, signal.SIGTERM)
        for caller in callers:
            caller.join()
    assert endings == [200] * _CALLERS


def test_who_is_in_the_kernels_queue_is_answered(tmp_path: Path) -> None:
    with worker(tmp_path) as running:
        host, port = running.http.split(":")
        os.kill(running.pid, signal.SIGSTOP)
        callers = [http.client.HTTPConnection(host, int(port), timeout=30) for _ in range(_CALLERS)]
        for caller in callers:
            caller.request("GET", "/v2/health/live")
        os.kill(running.pid, signal.SIGTERM)
        os.kill(running.pid, signal.SIGCONT)
        assert [caller.getresponse().status for caller in callers] == [200] * _CALLERS
        for caller in callers:
            caller.close()
