"""The REST application: routes, and one form for every error."""

from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import (
    ModelMetadataResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
)

from gateway.errors import ErrorKind, GatewayError, LimitExceeded
from gateway.rest import (
    admin_routes,
    classify_routes,
    console_routes,
    generate_routes,
    limit_headers,
    openapi,
    refused_routes,
    repository_routes,
    v2_routes,
)
from gateway.rest.body import CallerGone
from gateway.rest.direct import Direct
from gateway.rest.door import Door
from gateway.rest.status import STATUS

_log = structlog.get_logger(__name__)

_HEADERS: dict[ErrorKind, dict[str, str]] = {
    ErrorKind.UNAUTHENTICATED: {"www-authenticate": "Bearer"},
    ErrorKind.OVERLOADED: {"retry-after": "1"},
    ErrorKind.UNAVAILABLE: {"retry-after": "1"},
}


_DOCUMENTED = (
    ServerMetadataResponse,
    ModelMetadataResponse,
    ModelConfig,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
)


def build(door: Door, version: str) -> Direct:
    """The application, inference in front.

    Args:
        version: Of this software, for the OpenAPI document.
    """
    app = FastAPI(
        title="Tidegate",
        version=version,
        summary="Image inference on Triton: the KServe v2 protocol, and photographs in, labels out.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.door = door
    app.include_router(v2_routes.infer_router)
    app.include_router(classify_routes.router)
    app.include_router(v2_routes.open_router)
    app.include_router(v2_routes.router)
    app.include_router(generate_routes.router)
    app.include_router(repository_routes.router)
    app.include_router(refused_routes.router)
    app.include_router(admin_routes.router)
    app.include_router(console_routes.router)
    app.include_router(console_routes.pages())
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(CallerGone, _caller_gone)
    app.add_exception_handler(Exception, _unexpected)
    made: list[dict[str, Any]] = []

    def document() -> dict[str, Any]:
        if not made:
            made.append(openapi.document(app, _DOCUMENTED))
        return made[0]

    app.openapi = document  # type: ignore[method-assign]  # FastAPI documents this way to extend the document.
    return Direct(app, (*v2_routes.infer_router.routes, *classify_routes.router.routes))


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as Triton's REST writes it."""
    # Half a surrogate pair of the caller's cannot be written.
    text = message.encode("utf-8", "replace").decode()
    return Response(orjson.dumps({"error": text}), status, headers, "application/json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers = limit_headers.of(error) if isinstance(error, LimitExceeded) else _HEADERS.get(error.kind)
    return error_response(STATUS[error.kind], error.message, headers)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route of the path alone.
        headers["allow"] = ", ".join(_methods(request))
    return error_response(error.status_code, str(error.detail), headers)


def _methods(request: Request) -> list[str]:
    routes = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):
        return error_response(400, "content-type: must be application/json")
    first = error.errors()[0]
    return error_response(400, f"{first['loc'][-1]}: {first['msg']}")


async def _caller_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected failure", path=request.url.path, exc_info=error)
    return error_response(500, "the gateway failed; its log says why")
