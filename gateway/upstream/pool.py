"""Which replicas take calls, and which of them takes the next."""

from collections.abc import Callable, Iterable, Sequence
from random import random

import structlog

from gateway.errors import Unavailable
from gateway.figures import FleetFigures
from gateway.settings import UpstreamSettings
from gateway.upstream.outliers import Outliers
from gateway.upstream.replica import Health, Replica, Served

_LEAST_WEIGHT = 0.1

_log = structlog.get_logger(__name__)


class Pool:
    """The replicas by what they serve.

    What changes rarely (health, ejections, members) is worked out when it changes, so that a call looks up a tuple and
    compares two numbers.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float], figures: FleetFigures) -> None:
        self._settings = settings
        self._clock = clock
        self._figures = figures
        self._outliers = Outliers(settings, clock)
        self._members: tuple[Replica, ...] = ()
        self._rotation: tuple[Replica, ...] = ()
        self._serving: dict[Served, tuple[Replica, ...]] = {}
        self._rebuild_at: float | None = None

    @property
    def members(self) -> tuple[Replica, ...]:
        """All of them, well or not."""
        return self._members

    @property
    def rotation(self) -> tuple[Replica, ...]:
        """Those that take calls."""
        return self._rotation

    def set_members(self, replicas: Iterable[Replica]) -> None:
        """These and no others."""
        self._members = tuple(replicas)
        self._rebuild()

    def pick(self, model: str, version: str, tried: Sequence[Replica] = ()) -> Replica:
        """Of two chosen by chance the one with fewer calls under way.

        Args:
            model: Empty where any replica will do.
            tried: Not these.

        Raises:
            Unavailable: There is none.
        """
        candidates: Sequence[Replica] = self._serving.get((model, version)) or self._rotation
        if tried:
            candidates = [replica for replica in candidates if replica not in tried]
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise Unavailable("no inference server is healthy; they are being restarted or are not ready")
        return _better_of_two(candidates)

    def can_serve(self, replica: Replica, model: str, version: str) -> bool:
        """Whether a call for this model may go to this replica now."""
        return replica in (self._serving.get((model, version)) or self._rotation)

    def serves(self, model: str, version: str) -> bool:
        """Whether a replica that takes calls has this version ready."""
        return (model, version) in self._serving

    def heard(self, replica: Replica, serves: frozenset[Served]) -> None:
        """It answered a check."""
        if replica.health is Health.GOOD and replica.serves == serves:
            return
        if replica.health is not Health.GOOD:
            if replica.health is not Health.NEW:
                _log.info("replica is back", replica=replica.index, address=replica.address)
            if self._rotation and replica.health is not Health.NEW:
                replica.returned_at, replica.weight = self._clock(), _LEAST_WEIGHT
            else:
                replica.weight = 1.0
            replica.health = Health.GOOD
            replica.failures.clear()
        replica.serves = serves
        self._rebuild()

    def lost(self, replica: Replica) -> None:
        """Its connection broke, or its port is closed."""
        self._out(replica, Health.LOST)

    def silent(self, replica: Replica) -> None:
        """It leaves questions unanswered; what it was asked is given up where another can answer."""
        self._out(replica, Health.SILENT)
        if replica not in self._rotation:
            replica.link.abandon()

    def withdraw(self, replica: Replica, model: str, version: str) -> None:
        """It has this version no more, though it had when it was last asked."""
        if (model, version) in replica.serves:
            replica.serves -= {(model, version)}
            self._rebuild()

    def failed(self, replica: Replica, model: str, *, at_once: bool = False) -> None:
        """A call failed by the replica's fault.

        Args:
            at_once: The next would too: do not wait for a row of them.
        """
        if not (self._outliers.failed(replica, model) or at_once) or self._outliers.is_ejected(replica, model):
            return
        having = [each for each in self._rotation if any(name == model for name, _ in each.serves)]
        ejected = sum(self._outliers.is_ejected(each, model) for each in having)
        if ejected + 1 > len(having) * self._settings.max_ejected:
            return
        self._outliers.eject(replica, model)
        self._figures.ejected(replica.index)
        _log.warning("replica is ejected", replica=replica.index, address=replica.address, model=model)
        self._rebuild()

    def tick(self) -> None:
        """Time passed: a replica that came back gets more, and an ejection may be over."""
        now = self._clock()
        for replica in self._members:
            if replica.weight < 1.0:
                replica.weight = self._weight(now - replica.returned_at)
        if self._rebuild_at is not None and now >= self._rebuild_at:
            self._rebuild()

    def _weight(self, since_s: float) -> float:
        slow_start_s = self._settings.slow_start_s
        return 1.0 if since_s >= slow_start_s else max(_LEAST_WEIGHT, since_s / slow_start_s)

    def _out(self, replica: Replica, health: Health) -> None:
        if replica.health is health:
            return
        if replica.health is Health.GOOD:
            _log.warning("replica is out", replica=replica.index, address=replica.address, health=health.value)
            self._figures.ejected(replica.index)
        replica.health = health
        self._rebuild()

    def _rebuild(self) -> None:
        good = [replica for replica in self._members if replica.health is Health.GOOD]
        silent = [replica for replica in self._members if replica.health is Health.SILENT]
        # When all are silent it is more likely the check that fails than the replicas; then they are asked as before.
        may_be_out = int((len(good) + len(silent)) * self._settings.max_ejected) if good else 0
        self._rotation = (*good, *silent[may_be_out:])
        serving: dict[Served, list[Replica]] = {}
        ejected: dict[Served, list[Replica]] = {}
        for replica in self._rotation:
            for served in replica.serves:
                found = ejected if self._outliers.is_ejected(replica, served[0]) else serving
                found.setdefault(served, []).append(replica)
        self._serving = {served: tuple(serving.get(served, found)) for served, found in {**ejected, **serving}.items()}
        self._outliers.forget(self._members, frozenset(name for name, _ in self._serving))
        self._rebuild_at = self._outliers.next_end()
        for replica in self._members:
            self._figures.replica_up(replica.index, replica in self._rotation)


def _better_of_two(candidates: Sequence[Replica]) -> Replica:
    first = int(random() * len(candidates))
    second = int(random() * (len(candidates) - 1))
    one, other = candidates[first], candidates[second + (second >= first)]
    if one.weight < 1.0 and random() >= one.weight:
        return other
    if other.weight < 1.0 and random() >= other.weight:
        return one
    return one if one.outstanding <= other.outstanding else other
