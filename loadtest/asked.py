"""Runs that another process asks for, a line each, over one set of connections."""

import json
from typing import TextIO

import gevent

from loadtest.driver import driver
from loadtest.settings import LoadSettings
from loadtest.slo import Slo
from loadtest.tune.reading import Reading


def answer(settings: LoadSettings, asked: TextIO, answers: TextIO) -> None:
    """Make runs until there are no more to make.

    Args:
        asked: Lines of a rate and seconds, as a JSON list.
        answers: An empty line when all is ready, and a Reading a line, as a JSON object.

    Raises:
        LoadError: They cannot be made.
    """
    slo = Slo.parse(settings.slo or "")
    wait = gevent.get_hub().threadpool
    with driver(settings) as made:
        print(file=answers, flush=True)
        # Reading here would block the users.
        while line := wait.apply(asked.readline):
            rate, duration_s = json.loads(line)
            reading = Reading.of(made.run(rate, duration_s), slo)
            print(json.dumps(reading.to_message()), file=answers, flush=True)
