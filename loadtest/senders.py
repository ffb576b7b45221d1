"""A connection that sends requests as one tenant, on Locust's gevent: nothing of this shares a process with asyncio."""

import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc
import grpc.experimental.gevent as grpc_gevent
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from tritonclient.grpc.service_pb2 import ModelMetadataRequest, ModelMetadataResponse
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from loadtest.errors import LoadError
from loadtest.measured import OK
from loadtest.requests import Request, make_requests, target
from loadtest.settings import Kind, LoadSettings, Tenant
from loadtest.tls import open_channel, ssl_context

# Without it a call would block every user of the process.
grpc_gevent.init_gevent()

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_MAX_MESSAGE_BYTES = 1024**3


class Sender(Protocol):
    """One tenant on one connection.

    Attributes:
        images: In one request.
    """

    tenant: Tenant
    images: int

    def send(self) -> tuple[str, int]:
        """Send the next request and wait for the answer; what became of it, and the answer's size in bytes."""

    def close(self) -> None:
        """Give the connection back."""


class Requests:
    """The requests of each tenant, made once in a process and sent over and over by all its connections."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._made: dict[str, list[Request]] = {}
        self._marks = itertools.count(secrets.randbits(62))

    def prepare(self, tenant: Tenant) -> None:
        """Make those of a tenant, once.

        Raises:
            LoadError: The model does not say what it takes.
            BadLoad: It takes something else, or there are no images.
        """
        if tenant.name not in self._made:
            metadata = _metadata(self._settings, tenant)
            self._made[tenant.name] = make_requests(metadata, self._settings, tenant)

    def of(self, tenant: Tenant) -> Iterator[tuple[Request, bytes]]:
        """Request and body, without end."""
        self.prepare(tenant)
        return map(self._marked, itertools.cycle(self._made[tenant.name]))

    def _marked(self, request: Request) -> tuple[Request, bytes]:
        return request, request.body() if self._settings.cached else request.body(b"%016x" % next(self._marks))


class GrpcSender:
    """ModelInfer on a connection of its own; the answer is not parsed."""

    def __init__(self, settings: LoadSettings, tenant: Tenant, requests: Requests) -> None:
        self.tenant = tenant
        self.images = tenant.batch_size or settings.batch_size
        self._channel = _channel(settings)
        self._infer: Callable[..., bytes] = self._channel.unary_unary(_INFER)
        self._metadata = _authorization(tenant)
        self._deadline_s = settings.deadline_s
        self._requests = requests.of(tenant)

    def send(self) -> tuple[str, int]:
        """One call; what failed is named by its gRPC status."""
        _, body = next(self._requests)
        try:
            return OK, len(self._infer(body, metadata=self._metadata, timeout=self._deadline_s))
        except grpc.RpcError as error:
            return _status(error), 0

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()


class RestSender:
    """POST on connections of its own, as many as there are requests under way."""

    def __init__(self, settings: LoadSettings, tenant: Tenant, requests: Requests, concurrency: int) -> None:
        self.tenant = tenant
        self.images = tenant.batch_size or settings.batch_size
        timeout_s = settings.deadline_s
        trust: dict[str, Any] = {}
        if settings.tls:
            context = ssl_context(settings)
            # `insecure` leaves out the check of the name, and no other.
            trust = {"ssl_context_factory": lambda **_: context, "insecure": not context.check_hostname}
        self._client = HTTPClient.from_url(
            f"{'https' if settings.tls else 'http'}://{settings.http}",
            concurrency=concurrency,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
            **trust,
        )
        self._headers = {**dict(_authorization(tenant)), "x-tidegate-timeout-ms": str(round(timeout_s * 1_000))}
        self._requests = requests.of(tenant)

    def send(self) -> tuple[str, int]:
        """One request; what failed is named by its HTTP status."""
        request, body = next(self._requests)
        try:
            response = self._client.post(request.path, body, self._headers | dict(request.headers))
            size = len(response.read())
        except TimeoutError:
            return "no answer in time", 0
        except (OSError, HTTPParseError) as error:
            return f"no answer: {type(error).__name__}", 0
        return (OK, size) if response.status_code == 200 else (f"HTTP {response.status_code}", size)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def open_sender(settings: LoadSettings, tenant: Tenant, requests: Requests, concurrency: int) -> Sender:
    """The sender of a tenant's kind of requests.

    Args:
        concurrency: Requests under way at once.
    """
    if (tenant.kind or settings.kind) in (Kind.REST, Kind.CLASSIFY):
        return RestSender(settings, tenant, requests, concurrency)
    return GrpcSender(settings, tenant, requests)


def _channel(settings: LoadSettings) -> grpc.Channel:
    options = [
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        # Each its own connection, as clients on different machines have.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return open_channel(settings, options)


def _authorization(tenant: Tenant) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {tenant.key.get_secret_value()}"),)


def _metadata(settings: LoadSettings, tenant: Tenant) -> ModelMetadataResponse:
    model = target(settings.model, tenant.kind or settings.kind)
    with _channel(settings) as channel:
        stub: Any = GRPCInferenceServiceStub(channel)
        try:
            return stub.ModelMetadata(
                ModelMetadataRequest(name=model), metadata=_authorization(tenant), timeout=settings.deadline_s
            )
        except grpc.RpcError as error:
            raise LoadError(f"{settings.grpc} does not say what {model} takes: {_status(error)}") from error


def _status(error: grpc.RpcError) -> str:
    return str(error.code().name)
