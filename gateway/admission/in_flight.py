"""Bounds on what one process takes on at once, whoever asks."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded, TooLarge
from gateway.settings import LimitSettings


class Places:
    """So many, and no queue for them: whoever waits here only waits longer in Triton's.

    Args:
        what: What takes a place, for the error.
        reason: The same in one word, for the metrics.
    """

    def __init__(self, bound: int, what: str, reason: str) -> None:
        self._bound = bound
        self._what = what
        self._reason = reason
        self._taken = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the places."""
        if self._taken >= self._bound:
            raise Overloaded(f"{self._bound} {self._what}, the limit of this server; try again later", self._reason)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class InFlightLimit(Places):
    """Places for calls, and room for their bytes."""

    def __init__(self, settings: LimitSettings) -> None:
        super().__init__(settings.max_in_flight, "calls are in flight", "in-flight")
        self._settings = settings
        self._bytes = 0

    @contextmanager
    def hold(self, body_bytes: int, images: int) -> Iterator[None]:
        """Hold a request that was read."""
        if images > self._settings.max_batch:
            raise TooLarge(f"the request has {images} images, the limit is {self._settings.max_batch}")
        bound = self._settings.max_bytes_in_flight
        # One request always fits.
        if self._bytes and self._bytes + body_bytes > bound:
            raise Overloaded(
                f"{self._bytes} bytes of requests are in flight, the limit is {bound}; try again later",
                "bytes-in-flight",
            )
        self._bytes += body_bytes
        try:
            yield
        finally:
            self._bytes -= body_bytes
