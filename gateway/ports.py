"""The stages of a call, as the service sees them. `wiring.py` chooses what stands behind each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.call import CacheStatus, Caching, Headers, Identity, Scope, Tier, Watch
from gateway.errors import GatewayError


class Authenticator(Protocol):
    """Who is calling, and may they?"""

    async def authenticate(self, credential: str | None, scope: Scope) -> Identity:
        """Check a credential and that it has a scope.

        Raises:
            Unauthenticated: There is none, or it is unknown, wrong or revoked.
            PermissionDenied: It has not the scope.
            Unavailable: It cannot be looked up.
        """


class Places(Protocol):
    """How many are taken on at once."""

    def admit(self) -> AbstractContextManager[None]:
        """Hold a place for the length of a call.

        Raises:
            Overloaded: On entering, when every place is taken.
        """


class Admission(Places, Protocol):
    """How much is taken on at once."""

    def hold(self, body_bytes: int, images: int) -> AbstractContextManager[None]:
        """Hold a request that was read.

        Raises:
            Overloaded: On entering, when there is no room for its bytes.
            TooLarge: On entering, when it has more images than a request may.
        """


class Limiter(Protocol):
    """How much a key and its tenant may use."""

    def admit(self, identity: Identity, images: int, deadline: float) -> AbstractAsyncContextManager[None]:
        """Count a call against every limit of its caller, or against none, and hold its places while it runs.

        Args:
            deadline: On the event loop's clock, seconds; the call runs no longer.

        Raises:
            LimitExceeded: On entering, when one of them is used up.
            Unavailable: On entering, when nothing can be counted and the settings say that it must be.
        """


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        version: The version that will answer; empty where the router does not know the model, and Triton decides.
        cacheable: Equal requests may be given one answer.
        takes_timeout: The model's queue lets a request shorten its wait.
        batches: The first dimension of a tensor counts images.
        shared: Equal requests of different tenants may be given one answer.
        digest: Of what is known of the model beside its name and version, where it is cacheable.
        watch: What is to be noted of the answer; None where nothing is.
        decoupled: The model answers a request as often as it likes.
    """

    model: str
    version: str
    cacheable: bool
    takes_timeout: bool
    batches: bool
    shared: bool = False
    digest: bytes = b""
    watch: Watch | None = None
    decoupled: bool = False


class Router(Protocol):
    """Which version of a model answers."""

    def route(
        self, model: str, version: str, identity: Identity, headers: Headers, sequence: str | None = None
    ) -> Route:
        """Choose by name, by version or alias where one is named, and else as the model's policy has it.

        Args:
            sequence: The name of the sequence that the request belongs to: all of it goes to one version.
        """

    async def look_again(self) -> None:
        """Learn anew which versions are ready: one that was chosen is not any more."""

    def explain(self, model: str) -> str | None:
        """The inputs and outputs a model takes, in words for a caller that got them wrong; None where unknown."""


class CacheKey(NamedTuple):
    """What makes two requests equal.

    Attributes:
        digest: Of the request and of what else its answer depends on, but for the load.
        load: The load of the models that the answer belongs to.
    """

    model: str
    version: str
    digest: bytes
    load: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that was given before: a serialized ModelInferResponse.

    Attributes:
        expires_at: On the clock of the caches, seconds.
    """

    body: bytes
    expires_at: float


class ResponseCache(Protocol):
    """Answers by request."""

    async def get(self, key: CacheKey) -> KeptAnswer | None:
        """The answer, or None."""

    def put(self, key: CacheKey, answer: KeptAnswer) -> None:
        """Keep an answer for as long as there is room and time; it may be there a little later. Nothing is waited for."""


class Loads(Protocol):
    """Which load of the models an answer belongs to."""

    @property
    def current(self) -> bytes:
        """The load that answers of now belong to."""

    def advance(self) -> None:
        """A model was loaded, or may have been: answers from before are good no more."""

    async def agree(self) -> None:
        """With the other machines, within a bounded time."""


class Answers(Protocol):
    """Answers that were given before, and those under way."""

    def key(self, route: Route, identity: Identity, request: bytes) -> CacheKey:
        """The key of a request, which must be without its id."""

    async def find(
        self, key: CacheKey, ask: Callable[[], Awaitable[bytes]], caching: Caching
    ) -> tuple[bytes, CacheStatus]:
        """The answer, and where it comes from.

        Args:
            ask: Asks Triton, where nobody else has or does.

        Raises:
            GatewayError: Triton was asked, and failed.
        """


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sequence that a request belongs to: its state is in one Triton, and its requests arrive there in order.

    Attributes:
        name: The same for all of its requests, and for no other's.
        starts: This request begins it.
    """

    name: str
    starts: bool


class Triton(Protocol):
    """One Triton by itself."""

    async def call(self, method: str, request: bytes, deadline: float) -> bytes:
        """As of all of them."""


class Upstream(Protocol):
    """The Tritons that answer."""

    async def call(self, method: str, request: bytes, deadline: float) -> bytes:
        """Make one unary call of `inference.GRPCInferenceService` other than an inference.

        A load or an unload goes to every Triton.

        Args:
            method: The name of the RPC.
            request: The serialized message.
            deadline: On the event loop's clock, seconds.

        Raises:
            GatewayError: Of the kind that Triton's status means.
        """

    async def infer(
        self,
        model: str,
        version: str,
        request: bytes,
        deadline: float,
        sequence: Sequence | None = None,
        added: bytes = b"",
    ) -> bytes:
        """Answer a ModelInfer; where one Triton fails with it another may be asked.

        Args:
            model: What the request names, as is `version`.
            version: Empty where it names none.
            added: Fields that belong at the end of the request, apart so that a large one is not copied for them.

        Raises:
            GatewayError: Of the kind that Triton's status means.
        """


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """One response of a stream.

    Attributes:
        body: The serialized ModelStreamInferResponse.
        request_id: Of the request that it answers, empty where that had none.
        final: The request has no more.
        empty: It says only that: it was asked for, or it is not the caller's to see.
        error: What the response says went wrong.
    """

    body: bytes
    request_id: str
    final: bool
    empty: bool
    error: GatewayError | None


class UpstreamStream(Protocol):
    """What a caller's ModelStreamInfer becomes; all of it goes to one Triton."""

    async def send(self, request: bytes, decoupled: bool) -> None:
        """Hand over a serialized ModelInferRequest; waits while Triton takes none. Lost where the stream has ended.

        Args:
            decoupled: Its model is.
        """

    async def done(self) -> None:
        """There are no more requests."""

    def answers(self) -> AsyncIterator[StreamAnswer]:
        """Every response, until Triton ends the stream.

        Raises:
            GatewayError: Of the kind that Triton's status means.
        """


class StreamUpstream(Protocol):
    """The Triton that answers streams."""

    def stream(self, deadline: float) -> AbstractAsyncContextManager[UpstreamStream]:
        """Open a stream; leaving the block cancels what is still under way."""


class Audit(Protocol):
    """What administrators do is noted."""

    def act(self, actor: str, action: str, target: str) -> AbstractAsyncContextManager[None]:
        """Note an act before it begins, and its result after.

        Raises:
            Unavailable: On entering: it cannot be noted, and must not be done.
        """


class Concurrency(Protocol):
    """How many calls of a model are worked on at once."""

    def turn(self, model: str | None, tier: Tier, deadline: float) -> AbstractAsyncContextManager[Callable[[], None]]:
        """A place among them, for the length of the block; what it gives, called, gives the place back before.

        Args:
            model: None where it is not known to be served.

        Raises:
            Overloaded: On entering, when no answer would come in time or too many wait.
        """

    def is_free(self, model: str) -> bool:
        """A call may begin at once."""


class Rollouts(Protocol):
    """Who watches what versions answer. Neither waits nor fails."""

    def answered(self, route: Route, request: bytes, answer: bytes, seconds: float) -> None:
        """A version answered a request, which is as its caller sent it."""

    def failed(self, route: Route, error: GatewayError, seconds: float) -> None:
        """A version did not."""

    def streamed(self, route: Route, error: GatewayError | None) -> None:
        """A version was done with a request of a stream; how long that took is its caller's doing too."""
