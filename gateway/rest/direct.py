"""The road of inference, in front of FastAPI, which documents its routes and serves all others."""

from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send


class Direct:
    """Calls endpoints of the request, the door and the path's parameters, without FastAPI's middleware and dependencies.

    Those took a fifth of a small request's time in the gateway. What stands in the query an endpoint reads itself.

    Args:
        routes: Of POST. What they raise is answered as the application says.
    """

    def __init__(self, app: FastAPI, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [(route.path_regex, route.endpoint) for route in routes if isinstance(route, APIRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for path, endpoint in self._routes:
                if (match := path.match(scope["path"])) is not None:
                    scope["app"] = self._app
                    request = Request(scope, receive)
                    try:
                        response: Response = await endpoint(request, self._app.state.door, **match.groupdict())
                    except Exception as error:  # The edge of the transport.
                        response = await self._refused(request, error)
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _refused(self, request: Request, error: Exception) -> Response:
        handlers = self._app.exception_handlers
        handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
        response: Response = await handler(request, error)  # type: ignore[misc]  # Ours are coroutines.
        return response
