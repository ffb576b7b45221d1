"""What no honest client sends: each is refused clearly, and the gateway goes on with the memory it had."""

import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import hpack
import httpx
import numpy as np
import psutil
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from tests.conformance.conftest import MAX_BODY_BYTES, STALL_S, Gateway

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_ALLOWED_GROWTH = 12 * MAX_BODY_BYTES  # A few bodies of the greatest size, which the allocator keeps.


@pytest.fixture(autouse=True)
def unharmed(gateway: Gateway) -> Iterator[None]:
    """After each test the gateway is the same process, answers, and is not much larger."""
    process = psutil.Process(gateway.pid)
    _is_served(gateway)
    before = process.memory_info().rss
    yield
    _is_served(gateway)
    deadline = time.monotonic() + 10
    while process.memory_info().rss > before + _ALLOWED_GROWTH:
        assert time.monotonic() < deadline, f"grew by {process.memory_info().rss - before} bytes"
        time.sleep(0.1)


def _is_served(gateway: Gateway) -> None:
    body = b'{"inputs":[{"name":"in_INT8","datatype":"INT8","shape":[1],"data":[1]}]}'
    answer = httpx.post(f"http://{gateway.http}/v2/models/echo/infer", content=body, timeout=20)
    assert answer.json()["outputs"][0]["data"] == [1]
    request = ModelInferRequest(model_name="echo")
    request.inputs.add(name="in_INT8", datatype="INT8", shape=[1])
    request.raw_input_contents.append(b"\1")
    _send(gateway, request.SerializeToString())


def _send(gateway: Gateway, body: bytes, compression: grpc.Compression = grpc.Compression.NoCompression) -> bytes:
    with grpc.insecure_channel(gateway.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        call: Callable[..., bytes] = channel.unary_unary(_INFER)
        return call(body, timeout=60, compression=compression)


@contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


def _refusal(gateway: Gateway, request: bytes) -> tuple[int, str]:
    """Status and message of the answer, which comes although all of the request is sent first."""
    with _connected(gateway.http) as connection:
        connection.sendall(request)
        came = _closed_within(connection, 20)
    head, _, body = came.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def _closed_within(connection: socket.socket, seconds: float) -> bytes:
    """What came before the other side closed the connection."""
    connection.settimeout(seconds)
    came = b""
    try:
        while piece := connection.recv(65_536):
            came += piece
    except ConnectionResetError:
        pass
    return came


def test_a_grpc_message_that_grows_a_thousandfold(gateway: Gateway) -> None:
    request = ModelInferRequest(model_name="echo", raw_input_contents=[bytes(40 * MAX_BODY_BYTES)])
    with pytest.raises(grpc.RpcError) as error:
        _send(gateway, request.SerializeToString(), grpc.Compression.Gzip)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_body_that_grows_a_thousandfold(gateway: Gateway) -> None:
    answer = httpx.post(
        f"http://{gateway.http}/v2/models/echo/infer",
        content=gzip.compress(bytes(40 * MAX_BODY_BYTES)),
        headers={"content-encoding": "gzip"},
        timeout=30,
    )
    assert answer.status_code == 413 and str(MAX_BODY_BYTES) in answer.json()["error"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"inputs":['])
def test_json_nested_in_500_000_levels(gateway: Gateway, opening: bytes) -> None:
    answer = httpx.post(f"http://{gateway.http}/v2/models/echo/infer", content=opening * 500_000, timeout=30)
    assert answer.status_code == 400 and "not JSON" in answer.json()["error"]


def test_100_000_outputs(gateway: Gateway) -> None:
    outputs = [{"name": f"o{number}"} for number in range(100_000)]
    body = json.dumps({"inputs": [], "outputs": outputs}).encode()
    answer = httpx.post(f"http://{gateway.http}/v2/models/echo/infer", content=body, timeout=30)
    assert answer.status_code == 400 and "outputs" in answer.json()["error"]
    request = ModelInferRequest(model_name="echo")
    for output in outputs:
        request.outputs.add(name=output["name"])
    with pytest.raises(grpc.RpcError) as error:
        _send(gateway, request.SerializeToString())
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\xff\xff\xff\xff\x0fecho",  # A model's name of 4 GB.
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # A tensor of 2^63 bytes.
        b"\x0a\x04echo\x3a\x05ab",  # A tensor that ends early.
        b"\xff" * 1_000,
    ],
)
def test_lengths_that_lie(gateway: Gateway, body: bytes) -> None:
    with pytest.raises(grpc.RpcError) as error:
        _send(gateway, body)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_text_tensor_whose_lengths_lie(gateway: Gateway) -> None:
    request = ModelInferRequest(model_name="echo")
    request.inputs.add(name="in_BYTES", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", 0xFFFFFFFF) + b"abc")
    with pytest.raises(grpc.RpcError) as error:
        _send(gateway, request.SerializeToString())
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_million_chunks_of_one_byte(gateway: Gateway) -> None:
    body = b'{"inputs":[]}' + b" " * 1_000_000
    with _connected(gateway.http) as connection:
        connection.sendall(
            b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        connection.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert _closed_within(connection, 60).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("header", [b"x: " + b"y" * 10_000_000, b"x: y\r\n" * 1_600_000])
def test_10_megabytes_of_headers(gateway: Gateway, header: bytes) -> None:
    status, error = _refusal(gateway, b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + header)
    assert status == 431 and error == "the head of the request is over 32768 bytes"


@pytest.mark.parametrize("frame", [b"1\r\n{\r\n0\r\nx: ", b"1\r\n{\r\n0\r\nx: y\r\n", b"1;"])
def test_10_megabytes_around_a_body(gateway: Gateway, frame: bytes) -> None:
    """A trailer, trailers, or what may follow a chunk's length."""
    unit = b"x: y\r\n" if frame.endswith(b"\n") else b"yyyyyy"
    status, error = _refusal(gateway, _CHUNKED + frame + unit * 1_600_000)
    assert status == 431 and error == "the frame around the body of the request is over 32768 bytes"


def test_too_much_metadata(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        call: Callable[..., bytes] = channel.unary_unary(_INFER)
        call(b"", timeout=20, metadata=(("x", "y" * 10_000_000),))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.value.details() or "").endswith("bytes, limit 32768")


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HTT", b"GET /v2 HTTP/1.1\r\nhost: x\r\n", b"\r\n"])
def test_a_head_that_does_not_come(gateway: Gateway, sent: bytes) -> None:
    with _connected(gateway.http) as connection:
        connection.sendall(sent)
        assert _closed_within(connection, STALL_S + 10) == b""


def test_a_head_that_comes_byte_by_byte(gateway: Gateway) -> None:
    with _connected(gateway.http) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nx: ")
        deadline = time.monotonic() + STALL_S + 10
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < deadline:
                connection.sendall(b"y")
                time.sleep(0.1)


def test_a_body_that_does_not_come(gateway: Gateway) -> None:
    with _connected(gateway.http) as connection:
        connection.sendall(
            b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"x-tidegate-timeout-ms: 500\r\ncontent-length: 100\r\n\r\n{"
        )
        assert _closed_within(connection, 20).startswith(b"HTTP/1.1 504 ")
        assert _index_without_body(gateway).startswith(b"HTTP/1.1 504 ")


def _index_without_body(gateway: Gateway) -> bytes:
    with _connected(gateway.http) as connection:
        connection.sendall(
            b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"x-tidegate-timeout-ms: 500\r\ncontent-length: 100\r\n\r\n{"
        )
        return _closed_within(connection, 20)


def test_an_answer_that_is_not_read(gateway: Gateway) -> None:
    body = np.zeros(MAX_BODY_BYTES // 2, np.uint8).tobytes()
    head = b'{"inputs":[{"name":"in_UINT8","datatype":"UINT8","shape":[%d],"parameters":{"binary_data_size":%d}}],' % (
        len(body),
        len(body),
    )
    head += b'"parameters":{"binary_data_output":true}}'
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = gateway.http.split(":")
        connection.connect((host, int(port)))
        connection.sendall(
            b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
            b"inference-header-content-length: %d\r\n\r\n" % (len(head) + len(body), len(head)) + head + body
        )
        ours = connection.getsockname()[1]
        deadline = time.monotonic() + STALL_S + 20
        process = psutil.Process(gateway.pid)
        while any(other.raddr and other.raddr.port == ours for other in process.net_connections("tcp")):
            assert time.monotonic() < deadline, "the connection is still open"
            time.sleep(0.1)


def test_a_grpc_connection_that_is_not_opened(gateway: Gateway) -> None:
    with _connected(gateway.grpc) as connection:
        _closed_within(connection, STALL_S + 20)


def test_calls_that_are_opened_and_reset_at_once(gateway: Gateway) -> None:
    _rapid_reset(gateway)
    _is_served(gateway)


def _rapid_reset(gateway: Gateway) -> None:
    headers = _call_headers()
    with _connected(gateway.grpc) as connection:
        connection.sendall(_PREFACE)
        try:
            for start in range(1, 100_000, 2_000):
                numbers = range(start, start + 2_000, 2)
                connection.sendall(
                    b"".join(
                        _frame(1, 4, number, headers) + _frame(3, 0, number, bytes([0, 0, 0, 8])) for number in numbers
                    )
                )
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass  # It was thrown out, which is as good.


@pytest.mark.parametrize(
    "message, status, says",
    [
        (b"\0\xff\xff\xff\xff" + bytes(100), "8", "4294967295 bytes, limit"),  # 4 GB are to come.
        (b"\0\0\0\0\x64" + bytes(3), "3", "ended without a message"),  # 100 bytes, of which 3 come.
        (b"\1\0\0\0\x03abc", "3", "no grpc-encoding"),  # Compressed, in no way that was named.
        (b"\7\0\0\0\x03abc", "3", "neither 0 nor 1"),
    ],
)
def test_a_grpc_message_whose_prefix_lies(gateway: Gateway, message: bytes, status: str, says: str) -> None:
    with _connected(gateway.grpc) as connection:
        connection.sendall(_PREFACE + _frame(1, 4, 1, _call_headers()) + _frame(0, 1, 1, message))
        trailers = _trailers(connection, stream=1)
    assert trailers["grpc-status"] == status and says in trailers["grpc-message"]


def test_a_grpc_message_that_does_not_come(gateway: Gateway) -> None:
    with _connected(gateway.grpc) as connection:
        headers = _call_headers() + _literal(b"grpc-timeout", b"500m")
        connection.sendall(_PREFACE + _frame(1, 4, 1, headers) + _frame(0, 0, 1, b"\0\0\0\0\x64abc"))
        trailers = _trailers(connection, stream=1)
    assert trailers["grpc-status"] == "4" and "deadline" in trailers["grpc-message"]


@pytest.mark.parametrize(
    "body, status, says",
    [
        (b"ffffffffffffffff\r\n{", 504, "deadline"),
        (b"fffffffffffffffffffff\r\n{", 400, "not HTTP/1.1: Chunk size overflow"),
        (b"-1\r\n{", 400, "not HTTP/1.1: Invalid character in chunk size"),
        (b"5\r\n{}\r\n0\r\n\r\n", 400, "not HTTP/1.1: Invalid character in chunk size"),
        (b"1\r\n{}\r\n0\r\n\r\n", 400, "not HTTP/1.1: Expected LF after chunk data"),
    ],
)
def test_a_chunk_whose_length_lies(gateway: Gateway, body: bytes, status: int, says: str) -> None:
    found, error = _refusal(gateway, _CHUNKED + body)
    assert found == status and says in error


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 99999999999999999999999",
        b"content-length: 1000000000000",
        b"content-length: -1",
        b"content-length: 2\r\ncontent-length: 3",
        b"content-length: 2\r\ninference-header-content-length: 3",
        b"content-length: 2\r\ninference-header-content-length: -1",
        b"content-length: 2\r\ninference-header-content-length: 99999999999999999999999",
    ],
)
def test_a_header_whose_length_lies(gateway: Gateway, head: bytes) -> None:
    request = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + head + b"\r\n\r\n{}"
    status, error = _refusal(gateway, request)
    assert status in (400, 413) and error


def test_who_sends_all_of_its_body_first_reads_why_it_was_refused(gateway: Gateway) -> None:
    """Though it wishes for no other answer on its connection."""
    body = bytes(20_000_000)
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    status, error = _refusal(gateway, head + body)
    assert status == 413 and str(len(body)) in error


@pytest.mark.parametrize("body", [b"{", b"{}{}"])
def test_a_body_of_another_length_than_was_said(gateway: Gateway, body: bytes) -> None:
    """Too short, and the connection ends; too long, and what is too much is taken for the next request."""
    with _connected(gateway.http) as connection:
        connection.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        came = _closed_within(connection, 20)
    assert came.startswith(b"HTTP/1.1 400 ")
    assert json.loads(came.partition(b"\r\n\r\n")[2])["error"].startswith("the request ")


@pytest.mark.parametrize("shape", [[2**62, 4], [2**63], [-1], [10**30]])
def test_a_tensor_whose_size_lies(gateway: Gateway, shape: list[int]) -> None:
    url = f"http://{gateway.http}/v2/models/echo/infer"
    tensor = {"name": "in_INT8", "datatype": "INT8", "shape": shape}
    for member in ({"data": [1]}, {"parameters": {"binary_data_size": 10**18}}):
        answer = httpx.post(url, json={"inputs": [tensor | member]}, timeout=20)
        assert answer.status_code == 400 and answer.json()["error"]


def test_a_compressed_body_whose_own_length_lies(gateway: Gateway) -> None:
    packed = gzip.compress(b'{"inputs":[]}')
    lying = packed[:-4] + struct.pack("<I", 2**31)
    answer = httpx.post(
        f"http://{gateway.http}/v2/models/echo/infer", content=lying, headers={"content-encoding": "gzip"}, timeout=20
    )
    assert answer.status_code == 400 and "gzip" in answer.json()["error"]


def _call_headers() -> bytes:
    return b"".join(
        _literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", _INFER.encode()),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )


def _trailers(connection: socket.socket, stream: int) -> dict[str, str]:
    """What the stream ends with; empty where it is reset, or the connection ends."""
    came, decoder = b"", hpack.Decoder()
    while piece := connection.recv(65_536):
        came += piece
        while len(came) >= 9 and len(came) >= 9 + (length := int.from_bytes(came[:3])):
            kind, flags, number, payload = came[3], came[4], int.from_bytes(came[5:9]), came[9 : 9 + length]
            came = came[9 + length :]
            headers = {str(name): str(value) for name, value in decoder.decode(payload)} if kind == 1 else {}
            if number == stream and (kind == 3 or (kind == 1 and flags & 1)):
                return headers
    return {}


def _literal(name: bytes, value: bytes) -> bytes:
    """A header of HPACK's plainest form."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


_CHUNKED = (
    b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    b"x-tidegate-timeout-ms: 500\r\ntransfer-encoding: chunked\r\n\r\n"
)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")
