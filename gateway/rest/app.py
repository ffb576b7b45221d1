"""The REST application: routes, and one form for every error."""

from http import HTTPStatus

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import ErrorKind, GatewayError, LimitExceeded
from gateway.rest import (
    admin_routes,
    classify_routes,
    generate_routes,
    limit_headers,
    refused_routes,
    repository_routes,
    v2_routes,
)
from gateway.rest.body import CallerGone
from gateway.rest.door import Door
from gateway.rest.status import STATUS

_log = structlog.get_logger(__name__)

_HEADERS: dict[ErrorKind, dict[str, str]] = {
    ErrorKind.UNAUTHENTICATED: {"www-authenticate": "Bearer"},
    ErrorKind.OVERLOADED: {"retry-after": "1"},
    ErrorKind.UNAVAILABLE: {"retry-after": "1"},
}


def build(door: Door, version: str) -> FastAPI:
    """The application.

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
    app.include_router(v2_routes.router)
    app.include_router(generate_routes.router)
    app.include_router(repository_routes.router)
    app.include_router(refused_routes.router)
    app.include_router(classify_routes.router)
    app.include_router(admin_routes.router)
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(CallerGone, _caller_gone)
    app.add_exception_handler(Exception, _unexpected)
    return app


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as Triton's REST writes it."""
    return Response(orjson.dumps({"error": message}), status, headers, "application/json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers = limit_headers.of(error) if isinstance(error, LimitExceeded) else _HEADERS.get(error.kind)
    return error_response(STATUS[error.kind], error.message, headers)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(400, f"{first['loc'][-1]}: {first['msg']}")


async def _caller_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected failure", path=request.url.path, exc_info=error)
    return error_response(500, "the gateway failed; its log says why")
