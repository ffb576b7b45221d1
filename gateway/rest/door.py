"""What the routes work with, and how a request's key and deadline are read."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from gateway.auth.identities import Identities
from gateway.call import InferenceCall, InferenceReply
from gateway.credentials import bearer
from gateway.errors import InvalidArgument
from gateway.metrics.live import Live
from gateway.operations import Operations, Readiness
from gateway.rest.body import Body
from gateway.routing.catalog import ModelCatalog
from gateway.routing.policies import Policies
from gateway.service import InferenceService
from gateway.settings import LimitSettings
from gateway.stream import StreamService

CACHE_HEADER = "x-tidegate-cache"
TIMEOUT_HEADER = "x-tidegate-timeout-ms"

_MAX_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Door:
    """The objects behind the routes."""

    service: InferenceService
    streams: StreamService
    operations: Operations
    catalog: ModelCatalog
    readiness: Readiness
    limits: LimitSettings
    identities: Identities
    policies: Policies
    live: Live

    def deadline(self, request: Request) -> float:
        """The caller's, from `x-tidegate-timeout-ms`, within the bounds of the settings.

        Raises:
            InvalidArgument: The header is not a positive number.
        """
        asked = request.headers.get(TIMEOUT_HEADER)
        left_s = self.limits.default_deadline_s
        if asked is not None:
            if not asked.isdecimal() or len(asked) > _MAX_DIGITS or int(asked) == 0:
                raise InvalidArgument(f"{TIMEOUT_HEADER}: {asked!r} is not a positive number of milliseconds")
            left_s = int(asked) / 1_000
        return asyncio.get_running_loop().time() + min(left_s, self.limits.max_deadline_s)

    async def operate(self, request: Request, method: str, message: bytes) -> bytes:
        """One of the protocol's operations."""

        async def body() -> bytes:
            return message

        return await self.operations.call(method, credential(request), body, self.deadline(request))

    async def infer(self, body: Body, call: InferenceCall) -> InferenceReply:
        """An inference, cancelled when the caller goes away."""
        return await body.unless_gone(self.service.infer(call))


def credential(request: Request) -> str | None:
    """The key of the `Authorization: Bearer` header."""
    return bearer(request.headers.get("authorization"))


def call_of(
    door: Door,
    request: Request,
    read_body: Callable[[], Awaitable[bytes]],
    serialise: Callable[[bytes], Awaitable[None]],
    timed: Callable[[list[tuple[str, float]]], None] | None = None,
) -> InferenceCall:
    """The call that a request is.

    Raises:
        InvalidArgument: Its deadline cannot be read.
    """

    def header(name: str) -> str | None:
        values = request.headers.getlist(name)
        return ",".join(values) if values else None

    return InferenceCall(credential(request), door.deadline(request), read_body, header, serialise, timed)


# Coroutines, because FastAPI calls what is none in another thread.
async def _door(request: Request) -> Door:
    return cast(Door, request.app.state.door)


async def _version(request: Request) -> str:
    """Of the path; empty in the routes that leave it to the server."""
    return str(request.path_params.get("version", ""))


DoorDep = Annotated[Door, Depends(_door)]
VersionDep = Annotated[str, Depends(_version)]

# For the OpenAPI document: the service checks the key.
documented_key = Security(
    HTTPBearer(scheme_name="key", description="An API key, tg_…, or a token of the issuer.", auto_error=False)
)
