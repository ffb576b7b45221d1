"""What an OpenTelemetry collector is to its senders: it takes spans over gRPC and over HTTP, and keeps them."""

import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_WAIT_S = 30.0
_ID = re.compile(r'("(?:traceId|spanId|parentSpanId)": ?")([0-9a-f]+)"')


@dataclass
class Collector:
    """Where it is, and the spans it was sent.

    Attributes:
        grpc: http://host:port, as is `http`.
    """

    grpc: str = ""
    http: str = ""
    spans: list[Span] = field(default_factory=list)

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep what was sent."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def of(self, trace_id: str, until: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans of a trace, when they are there."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            found = [span for span in list(self.spans) if span.trace_id.hex() == trace_id]
            if until(found):
                return found
            assert time.monotonic() < deadline, sorted(span.name for span in found)
            time.sleep(0.05)


@contextmanager
def collector() -> Iterator[Collector]:
    """Started, and ended after."""
    kept = Collector()

    class OverGrpc(TraceServiceServicer):
        def Export(
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            kept.take(request)
            return ExportTraceServiceResponse()

    class OverHttp(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if "json" in self.headers["content-type"]:
                kept.take(_of_json(body))
            else:
                kept.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(OverGrpc(), server)  # type: ignore[no-untyped-call]  # Generated.
    kept.grpc = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(OverHttp)) as http:
        kept.http = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield kept
        finally:
            http.shutdown()
            thread.join()
            server.stop(0).wait()


def _of_json(body: bytes) -> ExportTraceServiceRequest:
    """OTLP's JSON has ids in hexadecimal, where that of protobuf has base64."""
    in_base64 = _ID.sub(lambda found: found[1] + b64encode(bytes.fromhex(found[2])).decode() + '"', body.decode())
    return Parse(in_base64, ExportTraceServiceRequest(), ignore_unknown_fields=True)
