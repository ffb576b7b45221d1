"""What the two transports hand to the service, and what they get back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from contract.card import ENCODED_SUFFIX
from gateway.errors import GatewayError


class Scope(StrEnum):
    """What a key may do."""

    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


class Tier(StrEnum):
    """Whose calls go first where not all can."""

    HIGH = "high"
    STANDARD = "standard"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key, or all keys of a tenant together, may use; None is without a limit."""

    requests_per_s: float | None = None
    images_per_s: float | None = None
    images_per_day: int | None = None
    max_in_flight: int | None = None


class Resource(StrEnum):
    """What is limited: a rate a second, a quota a day (UTC), or calls at once."""

    REQUESTS = "requests"
    IMAGES = "images"
    IMAGES_TODAY = "images-today"
    IN_FLIGHT = "in-flight"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that a call must fit.

    Attributes:
        account: Who is charged: `key:<id>`, `tenant:<name>`.
    """

    account: str
    resource: Resource
    amount: float


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that showed a good credential.

    Attributes:
        subject: `key:<id>`, `token:<subject>` or `anonymous`.
        models: Globs of the models it may name.
        limits: Those of the key and of its tenant.
        tenant: The name of its tenant; None where it has none.
        tier: Whether its calls go first where not all can.
    """

    subject: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ("*",)
    limits: tuple[Limit, ...] = ()
    tenant: str | None = None
    tier: Tier = Tier.STANDARD

    def may_name(self, model: str) -> bool:
        """Whether a glob matches the model; who may name a model may name its `_encoded` twin."""
        if "*" in self.models:
            return True
        names = (model, model.removesuffix(ENCODED_SUFFIX))
        return any(fnmatchcase(name, glob) for glob in self.models for name in names)


Headers = Callable[[str], str | None]


def no_headers(name: str) -> None:
    """The headers of a call that has none."""


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """One call for inference, as either transport brings it.

    Attributes:
        credential: The key as the caller sent it; None where there was none.
        deadline: When the caller stops waiting, on the event loop's clock, seconds.
        read_body: Gives the serialized ModelInferRequest. It is not asked for before the caller is known and admitted.
        headers: Gives a header of the call by its name in lower case, None where there is none.
        serialise: Makes the transport's own answer of the serialized ModelInferResponse; None where that is sent as it is.
            It is part of the call: what it raises is what became of it.
        timed: Told the stages of a call that was answered, and the seconds each took; None: nobody asks.
    """

    credential: str | None
    deadline: float
    read_body: Callable[[], Awaitable[bytes]]
    headers: Headers = no_headers
    serialise: Callable[[bytes], Awaitable[None]] | None = None
    timed: Callable[[list[tuple[str, float]]], None] | None = None


@dataclass(frozen=True, slots=True)
class StreamCall:
    """A stream of calls, as either transport brings it.

    Attributes:
        credential: The key as the caller sent it; None where there was none.
        deadline: When the stream is over, on the event loop's clock, seconds.
        receive: Gives the next serialized ModelInferRequest, None when the caller has no more.
        send: Takes a serialized ModelStreamInferResponse, and the error that it tells; waits while the caller takes none.
        headers: Gives a header of the call by its name in lower case, None where there is none.
    """

    credential: str | None
    deadline: float
    receive: Callable[[], Awaitable[bytes | None]]
    send: Callable[[bytes, GatewayError | None], Awaitable[None]]
    headers: Headers = no_headers


class CacheStatus(StrEnum):
    """What the cache did for a call; the value of `x-tidegate-cache`."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    BYPASS = "bypass"


class Caching(StrEnum):
    """What a caller allows the cache, by `cache-control`. `no-store` is more than `no-cache`."""

    FREE = ""
    NO_CACHE = "no-cache"
    NO_STORE = "no-store"


@dataclass(frozen=True, slots=True)
class InferenceReply:
    """An answer: a serialized ModelInferResponse."""

    body: bytes
    cache: CacheStatus


class Arm(StrEnum):
    """Which side of a rollout a version is on."""

    STABLE = "stable"
    CANARY = "canary"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be noted of an answer.

    Attributes:
        policy: The model whose policy it is.
        revision: Of the policy.
        copy_to: The version that is asked the same, for comparison; empty where none is.
    """

    policy: str
    revision: int
    arm: Arm
    copy_to: str
