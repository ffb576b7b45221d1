"""Load in a process of its own: Locust's gevent goes with no other event loop."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from loadtest.errors import LoadError
from loadtest.tune.reading import Reading

_END_S = 30.0

Run = Callable[[float, float], Reading]
"""From a rate and seconds to what came of it."""


@contextmanager
def load_process(environment: Mapping[str, str]) -> Iterator[Run]:
    """A process with its connections and requests ready, for the length of the block.

    Args:
        environment: With the settings of the load, an SLO among them.

    Yields:
        Makes a run.

    Raises:
        LoadError: The process has ended; its own message says why.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "loadtest", "asked"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the one who asks.
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def answer() -> str:
        if line := answers.readline():
            return line
        raise LoadError("the process that makes the load has ended; its message says why")

    def run(rate: float, duration_s: float) -> Reading:
        with suppress(BrokenPipeError):
            print(json.dumps([rate, duration_s]), file=asked, flush=True)
        return Reading(**json.loads(answer()))

    try:
        answer()
        yield run
        asked.close()
        process.wait(_END_S)
    finally:
        process.kill()
        process.wait()
        answers.close()
