"""Locust users. For example: `locust -f loadtest/locustfile.py --host 127.0.0.1:8001 --headless -u 16 -t 30s`."""

import itertools
import time
from typing import Any

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import User, task
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.requests import random_images
from loadtest.settings import LoadSettings

# Without it a call would block every user of the process.
grpc_gevent.init_gevent()

_MAX_MESSAGE_BYTES = 1024**3


class GrpcImages(User):
    """Sends image tensors over gRPC, one request after the other, on a connection of its own."""

    def on_start(self) -> None:
        """Connect, and make the requests."""
        self._settings = LoadSettings()
        options = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # Each user its own connection, as clients on different machines have.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.insecure_channel(self.host or "127.0.0.1:8001", options)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {self._settings.key.get_secret_value()}"),)
        asked = service_pb2.ModelMetadataRequest(name=self._settings.model)
        model = self._stub.ModelMetadata(asked, metadata=self._metadata, timeout=self._settings.deadline_s)
        requests = random_images(model, self._settings.batch_size, self._settings.distinct)
        self._requests = itertools.cycle(requests)

    def on_stop(self) -> None:
        """Disconnect."""
        self._channel.close()

    @task
    def infer(self) -> None:
        """One request; what failed is counted by its gRPC status."""
        started = time.perf_counter()
        size, failure = 0, None
        try:
            reply = self._stub.ModelInfer(
                next(self._requests), metadata=self._metadata, timeout=self._settings.deadline_s
            )
            size = reply.ByteSize()
        except grpc.RpcError as error:
            failure = error
        self.environment.events.request.fire(
            request_type="gRPC",
            name=f"ModelInfer {self._settings.model}",
            response_time=(time.perf_counter() - started) * 1_000,
            response_length=size,
            exception=failure,
        )
