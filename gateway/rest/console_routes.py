"""The console: a page for who has a key, and the figures that it asks for."""

import asyncio
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.call import Identity, Scope
from gateway.errors import DeadlineExceeded, NotFound, PermissionDenied
from gateway.metrics.live import LiveFigures
from gateway.rest.door import Door, DoorDep, credential, documented_key

_FOLDER = Path(__file__).parent.parent / "console"
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def pages() -> APIRouter:
    """The page and its files, which hold nothing that a key protects; read once."""
    router = APIRouter(prefix="/console", include_in_schema=False)
    contents = {name: (_FOLDER / name).read_bytes() for name in _TYPES}
    tags = {name: f'"{blake2b(content, digest_size=12).hexdigest()}"' for name, content in contents.items()}

    def file(request: Request, name: str) -> Response:
        headers = {**_HEADERS, "etag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(contents[name], media_type=_TYPES[name], headers=headers)

    @router.get("")
    async def page(request: Request) -> Response:
        return file(request, "index.html")

    @router.get("/{name}")
    async def part(request: Request, name: str) -> Response:
        if name not in contents:
            raise NotFound(f"the console has no file {name!r}")
        return file(request, name)

    return router


router = APIRouter(prefix="/admin/v1", tags=["admin"], dependencies=[documented_key])


@router.get("/live", summary="Figures of all workers, models and Tritons")
async def live(request: Request, door: DoorDep) -> LiveFigures:
    """Counted since the workers began; takes the scope `read`, or `admin`.

    Without `admin` it has the models that the key may name, its own tenant and use, and no addresses.
    """
    try:
        async with asyncio.timeout_at(door.deadline(request)):
            identity = await _reader(request, door)
            figures = await door.live.read()
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the answer was there") from error
    return figures if Scope.ADMIN in identity.scopes else _less(figures, identity)


async def _reader(request: Request, door: Door) -> Identity:
    authenticate = door.identities.authenticator.authenticate
    try:
        return await authenticate(credential(request), Scope.READ)
    except PermissionDenied:
        return await authenticate(credential(request), Scope.ADMIN)


def _less(figures: LiveFigures, identity: Identity) -> LiveFigures:
    return replace(
        figures,
        models=[each for each in figures.models if identity.may_name(each.model)],
        tenants=[each for each in figures.tenants if each.tenant == identity.tenant],
        keys=[each for each in figures.keys if f"key:{each.key}" == identity.subject],
        replicas=[replace(each, address="") for each in figures.replicas],
    )
