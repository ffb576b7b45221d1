"""The Locust user: a connection on which requests begin when they are due, or one after the other."""

import math
import time
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import ClassVar

import gevent
from gevent.pool import Pool
from locust import User, task

from loadtest.arrivals import arrivals
from loadtest.measured import OK, UNSENT
from loadtest.senders import Requests, Sender, open_sender
from loadtest.settings import LoadSettings
from loadtest.trials import Trial, Trials


class Images(User):
    """Sends the requests of one key, or of several tenants by their shares, each over gRPC or REST as its kind is.

    Attributes:
        trials: The runs of `tidegate load`; None under `locust`, whose runs and figures are its own.
    """

    trials: ClassVar[Trials | None] = None

    def on_start(self) -> None:
        """Connect, and make the requests."""
        settings = self._settings = LoadSettings()
        tenants = settings.sharing()
        outstanding = max(1, settings.max_outstanding // settings.connections)
        self._senders = [open_sender(settings, tenant, _requests(), outstanding) for tenant in tenants]
        self._shares = [tenant.share for tenant in tenants]
        self._random = Random()
        self._pool = Pool(outstanding)
        self._trial: Trial | None = None
        self._number = 0 if self.trials is None else self.trials.enroll()
        self._due = self._own_arrivals(settings) if self.trials is None else iter(())

    def on_stop(self) -> None:
        """Give up what has no answer, and disconnect."""
        self._pool.kill()
        for sender in self._senders:
            sender.close()

    @task
    def begin_request(self) -> None:
        """Wait until the next request is due and send it, without waiting for its answer."""
        due = next(self._due, None)
        if due is None:
            self._next_trial()
            return
        if math.isnan(due):
            self._send(self._choose(), time.perf_counter())
            return
        if (early := due - time.perf_counter()) > 0:
            gevent.sleep(early)
        sender = self._choose()
        if self._pool.full():
            now = time.perf_counter()
            self._record(sender, UNSENT, due, now, now, 0)
        else:
            self._pool.spawn(self._send, sender, due)

    def _own_arrivals(self, settings: LoadSettings) -> Iterator[float]:
        """On `time.perf_counter`; without a rate NaN for ever: when the request before has its answer."""
        if settings.user_rate is None:
            while True:
                yield math.nan
        begin = time.perf_counter()
        for offset in arrivals(settings.arrivals, settings.user_rate, phase=self._random.random(), random=self._random):
            yield begin + offset

    def _next_trial(self) -> None:
        assert self.trials is not None
        if self._trial is not None:
            self._pool.join()
            self.trials.finish()
        self._trial = self.trials.next(self._trial)
        self._due = self.trials.starts(self._trial, self._number)

    def _choose(self) -> Sender:
        if len(self._senders) == 1:
            return self._senders[0]
        return self._random.choices(self._senders, self._shares)[0]

    def _send(self, sender: Sender, due: float) -> None:
        sent = time.perf_counter()
        outcome, size = sender.send()
        self._record(sender, outcome, due, sent, time.perf_counter(), size)

    def _record(self, sender: Sender, outcome: str, due: float, sent: float, done: float, size: int) -> None:
        if self.trials is not None:
            self.trials.record(sender.tenant.name, outcome, due, sent, done, sender.images)
            return
        self.environment.events.request.fire(
            request_type=str(sender.tenant.kind or self._settings.kind),
            name=sender.tenant.name,
            response_time=(done - due) * 1_000,
            response_length=size,
            exception=None if outcome == OK else RuntimeError(outcome),
        )


def check_requests(settings: LoadSettings) -> None:
    """Make the requests, before there are users that could fail to.

    Raises:
        LoadError: The model does not say what it takes.
        BadLoad: It takes something else, or there are no images or tenants.
    """
    for tenant in settings.sharing():
        _requests().prepare(tenant)


@cache
def _requests() -> Requests:
    """One for a process: Locust makes the users and hands them nothing."""
    return Requests(LoadSettings())
