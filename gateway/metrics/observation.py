"""The figures of one call while it runs."""

from asyncio import CancelledError
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self

from gateway.call import CacheStatus, Identity
from gateway.errors import ErrorKind, GatewayError

UNKNOWN = "unknown"
OK = "ok"
CANCELLED = "cancelled"


class CallObservation:
    """The times at which the stages of a call ended, and what became of it. A context manager: the call is its block.

    Attributes:
        stages: The name of a stage, and when it ended.
        subject: The caller, as `Identity` names it; None where it is not known.
        trace_id: Of the trace that holds the call; empty where none does.
        error: What left the block, while `ended` is told.
    """

    __slots__ = (
        "_ended",
        "cache",
        "error",
        "images",
        "model",
        "request_bytes",
        "request_id",
        "response_bytes",
        "stages",
        "started",
        "subject",
        "tenant",
        "trace_id",
        "version",
    )

    def __init__(self, ended: "Callable[[CallObservation, str], None]") -> None:
        """Begin now.

        Args:
            ended: Told the outcome, once.
        """
        self._ended = ended
        self.model = UNKNOWN
        self.version = UNKNOWN
        self.tenant: str | None = None
        self.subject: str | None = None
        self.request_id = ""
        self.trace_id = ""
        self.images = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.cache = CacheStatus.BYPASS
        self.error: BaseException | None = None
        self.stages: list[tuple[str, float]] = []
        self.started = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.error = error
        self._ended(self, outcome_of(error))
        self.error = None  # Its frames hold this, and the request.

    def stage(self, name: str) -> None:
        """The stage `name` ends now; the next begins."""
        self.stages.append((name, perf_counter()))

    def elapsed(self) -> list[tuple[str, float]]:
        """The stages that ended, and the seconds each took."""
        begun = [self.started, *(at for _, at in self.stages)]
        return [(name, at - before) for before, (name, at) in zip(begun, self.stages, strict=False)]

    def called_by(self, identity: Identity) -> None:
        """The caller is known."""
        self.tenant, self.subject = identity.tenant, identity.subject

    def asked(self, request_id: str, body_bytes: int, images: int) -> None:
        """The request was read."""
        self.request_id, self.request_bytes, self.images = request_id, body_bytes, images

    def answered_by(self, model: str, version: str) -> None:
        """The model is known to be one that is served."""
        self.model, self.version = model, version

    def cached(self, status: CacheStatus) -> None:
        """What the cache did."""
        self.cache = status

    def answered(self, body_bytes: int) -> None:
        """There is an answer; one of several, in a stream."""
        self.response_bytes += body_bytes


def outcome_of(error: BaseException | None) -> str:
    """What became of a call that this left: `ok`, `cancelled`, or the kind of error."""
    if error is None:
        return OK
    if isinstance(error, GatewayError):
        return error.kind.value
    return CANCELLED if isinstance(error, CancelledError) else ErrorKind.INTERNAL.value
