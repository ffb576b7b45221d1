"""What can go wrong with a call, without a word of HTTP or gRPC.

GatewayError
├── Unauthenticated     no key, or one that is unknown, wrong or revoked
├── PermissionDenied    a good key that may not do this
├── InvalidArgument     the request does not fit the protocol or the model
├── NotFound            no such model or version
├── Conflict            what is to be made is there already, or was changed meanwhile
├── TooLarge            a body over its limit
├── LimitExceeded       the caller used up what its key or tenant may
├── Overloaded          refused to protect what is already being worked on
├── DeadlineExceeded    the caller's time is up
├── Unavailable         no healthy Triton
├── Unimplemented       what this door does not offer
└── Internal            ours, or Triton's own failure

A message is safe to show to the caller; the cause, chained with `from`, is for the log.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """What a transport turns into its own status; also the `outcome` of a failed call in the metrics."""

    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    LIMIT_EXCEEDED = "limit_exceeded"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNAVAILABLE = "unavailable"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


class GatewayError(Exception):
    """A call that ends without an answer."""

    kind: ClassVar[ErrorKind]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unauthenticated(GatewayError):
    """The caller is not known."""

    kind = ErrorKind.UNAUTHENTICATED


class PermissionDenied(GatewayError):
    """The caller is known and may not do this."""

    kind = ErrorKind.PERMISSION_DENIED


class InvalidArgument(GatewayError):
    """The request names the wrong thing, or the right thing wrongly. The message names the field."""

    kind = ErrorKind.INVALID_ARGUMENT


class NotFound(GatewayError):
    """The model or version is not served."""

    kind = ErrorKind.NOT_FOUND


class Conflict(GatewayError):
    """What is to be made is there already, or what is to be changed was changed meanwhile."""

    kind = ErrorKind.CONFLICT


class TooLarge(GatewayError):
    """A body is over its limit. The message names the limit."""

    kind = ErrorKind.TOO_LARGE


class LimitExceeded(GatewayError):
    """A limit of the caller's key or tenant is used up.

    Attributes:
        limit: Which, in words such as `key-images`.
        amount: What it allows within `window_s`.
        retry_after_s: When the same call will fit, if nothing else comes before it.
    """

    kind = ErrorKind.LIMIT_EXCEEDED

    def __init__(self, message: str, limit: str, amount: float, window_s: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.amount = amount
        self.window_s = window_s
        self.retry_after_s = retry_after_s


class Overloaded(GatewayError):
    """There is no room. The same call may be served later; a client should wait before it tries again.

    Attributes:
        reason: What was full, in one word for the metrics.
    """

    kind = ErrorKind.OVERLOADED

    def __init__(self, message: str, reason: str = "upstream") -> None:
        super().__init__(message)
        self.reason = reason


class DeadlineExceeded(GatewayError):
    """The call's time is up."""

    kind = ErrorKind.DEADLINE_EXCEEDED


class Unavailable(GatewayError):
    """Triton cannot be reached, or is not ready."""

    kind = ErrorKind.UNAVAILABLE


class Unimplemented(GatewayError):
    """Not offered here. The message says why."""

    kind = ErrorKind.UNIMPLEMENTED


class Internal(GatewayError):
    """A failure that is not the caller's."""

    kind = ErrorKind.INTERNAL
