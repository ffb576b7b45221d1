"""What the client saw: counted by one process, sent to the master, and added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loadtest.histogram import Histogram, bucket, quantile

OK = "ok"
UNSENT = "not sent"


@dataclass(slots=True)
class Second:
    """Requests that were to begin in one second of a run.

    Attributes:
        good: Latencies of good answers.
        failed: Requests without one.
    """

    number: int
    good: Histogram = field(default_factory=Counter)
    failed: int = 0


@dataclass(slots=True)
class Measured:
    """One run.

    Attributes:
        rate: Requests a second that were intended, at the peak, as `duration_s` was.
        latency: From the intended start to the end, by tenant, outcome and second of the intended start.
        service: From when it was sent to the end, of good answers.
        late: From the intended start to when it was sent, of all that were sent.
        images: In good answers.
        cpu: Seconds of processor time of each process of the client.
    """

    rate: float
    duration_s: float
    latency: dict[tuple[str, str, int], Histogram] = field(default_factory=dict)
    service: Histogram = field(default_factory=Counter)
    late: Histogram = field(default_factory=Counter)
    images: int = 0
    cpu: list[float] = field(default_factory=list)

    def record(self, tenant: str, outcome: str, due_s: float, sent_s: float, done_s: float, images: int) -> None:
        """Count one request; its times are seconds from the beginning of the run."""
        key = (tenant, outcome, int(due_s))
        found = self.latency.get(key)
        if found is None:
            found = self.latency[key] = Counter()
        found[bucket(done_s - due_s)] += 1
        if outcome != UNSENT:
            self.late[bucket(sent_s - due_s)] += 1
        if outcome == OK:
            self.service[bucket(done_s - sent_s)] += 1
            self.images += images

    def to_message(self) -> dict[str, Any]:
        """For Locust's wire, which has lists and no other keys than text."""
        return {
            "rate": self.rate,
            "duration_s": self.duration_s,
            "latency": [[*key, list(counts.items())] for key, counts in self.latency.items()],
            "service": list(self.service.items()),
            "late": list(self.late.items()),
            "images": self.images,
            "cpu": self.cpu,
        }

    @classmethod
    def of_messages(cls, messages: Iterable[dict[str, Any]]) -> Measured:
        """All processes of a run together; there is at least one."""
        parts = list(messages)
        run = cls(parts[0]["rate"], parts[0]["duration_s"])
        for part in parts:
            for tenant, outcome, second, counts in part["latency"]:
                run.latency.setdefault((tenant, outcome, second), Counter()).update(dict(counts))
            run.service.update(dict(part["service"]))
            run.late.update(dict(part["late"]))
            run.images += part["images"]
            run.cpu += part["cpu"]
        return run

    @property
    def outcomes(self) -> Counter[str]:
        """How many ended how."""
        return self.outcomes_of(None)

    def outcomes_of(self, tenant: str | None) -> Counter[str]:
        """How many ended how, of one tenant or of all."""
        found: Counter[str] = Counter()
        for (each, outcome, _), counts in self.latency.items():
            if tenant in (None, each):
                found[outcome] += counts.total()
        return found

    @property
    def tenants(self) -> list[str]:
        """In alphabetical order."""
        return sorted({tenant for tenant, _, _ in self.latency})

    @property
    def count(self) -> int:
        """Requests that were intended."""
        return self.outcomes.total()

    @property
    def answered(self) -> int:
        """Requests with a good answer."""
        return self.outcomes[OK]

    @property
    def error_share(self) -> float:
        """Of the requests that were intended; none at all is an error."""
        return 1 - self.answered / self.count if self.count else 1.0

    @property
    def throughput(self) -> float:
        """Good answers a second."""
        return self.answered / self.duration_s

    def good(self, tenant: str | None = None) -> Histogram:
        """Latencies of good answers, of one tenant or of all."""
        found: Histogram = Counter()
        for (each, outcome, _), counts in self.latency.items():
            if outcome == OK and tenant in (None, each):
                found.update(counts)
        return found

    def seconds(self) -> list[Second]:
        """Each second in which requests were to begin, in order."""
        found: dict[int, Second] = {}
        for (_, outcome, number), counts in self.latency.items():
            second = found.setdefault(number, Second(number))
            if outcome == OK:
                second.good.update(counts)
            else:
                second.failed += counts.total()
        return [found[number] for number in sorted(found)]

    def quantile(self, fraction: float, *, failures: bool = False) -> float:
        """Of latency from the intended start, seconds.

        Args:
            failures: Count requests without a good answer, as slower than any.
        """
        return quantile(self.good(), fraction, self.count - self.answered if failures else 0)
