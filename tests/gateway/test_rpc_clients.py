"""Our gRPC server before gRPC's own clients, and what they see of its end."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from gateway.rpc.call import Call, Method
from gateway.rpc.server import RpcServer
from gateway.settings import LimitSettings
from tests.certificates import NAMES
from tests.gateway.rpc_peer import OPENING, Peer, asked, echo, listener, message, serving, sized, stream

_LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# What is in the ping with which a server says that it goes.
_GOING = b"tidegate"
_CLIENTS = 8
_STOPS = 8


async def tells_what_it_was_told(call: Call) -> bytes | None:
    call.set_trailing_metadata((("said", call.head.fields["told"]), ("in", call.head.fields["told-bin"])))
    return await call.read()


async def gives_up(call: Call) -> None:
    await call.abort(grpc.StatusCode.ABORTED, "100 % of “it”", (("why", "so"),))


class Hanging:
    """A method that waits for its end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self, call: Call) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


async def test_what_grpcs_client_sends_and_reads() -> None:
    hanging = Hanging()
    methods: dict[str, Method] = {
        "/t/echo": echo,
        "/t/stream": stream,
        "/t/sized": sized,
        "/t/told": tells_what_it_was_told,
        "/t/gives_up": gives_up,
        "/t/hangs": hanging,
    }

    def asks(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=_LARGE) as channel:
            unary: Callable[[str], Callable[..., Any]] = channel.unary_unary
            assert unary("/t/echo")(b"", timeout=10) == b""
            large = bytes(range(256)) * 80_000
            assert unary("/t/echo")(large, timeout=20) == large
            for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                assert unary("/t/echo")(large, timeout=20, compression=compression) == large
            assert len(unary("/t/sized")(b"20000000", timeout=20)) == 20_000_000
            with pytest.raises(grpc.RpcError) as error:
                unary("/t/echo")(bytes(30_000_001), timeout=10)
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

            metadata = (("told", "x" * 3_000), ("told-bin", b"\0\xff"))
            tells: Any = channel.unary_unary("/t/told")
            said = dict(tells.with_call(b"", timeout=10, metadata=metadata)[1].trailing_metadata())
            assert said["said"] == "x" * 3_000 and said["in"].rstrip("=") == "AP8"
            with pytest.raises(grpc.RpcError) as error:
                unary("/t/gives_up")(b"", timeout=10)
            assert (error.value.code(), error.value.details()) == (grpc.StatusCode.ABORTED, "100 % of “it”")
            trailing: Any = error.value.trailing_metadata()
            assert ("why", "so") in trailing
            with pytest.raises(grpc.RpcError) as error:
                unary("/t/none")(b"", timeout=10)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

            with pytest.raises(grpc.RpcError) as error:
                unary("/t/hangs")(b"", timeout=0.05)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert hanging.cancelled.wait(10)
            hanging.begun.clear()
            hanging.cancelled.clear()
            hangs: Any = channel.unary_unary("/t/hangs")
            begun = hangs.future(b"")
            assert hanging.begun.wait(10) and begun.cancel() and hanging.cancelled.wait(10)

            bodies = [bytes([index]) * index * 1_000 for index in range(60)]
            streams: Any = channel.stream_stream("/t/stream")
            assert list(streams(iter(bodies), timeout=20)) == bodies

    async with serving(methods) as port:
        await asyncio.to_thread(asks, port)


async def test_a_thousand_calls_side_by_side_on_one_channel() -> None:
    async with serving({"/t/echo": echo}) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Callable[..., Any] = channel.unary_unary("/t/echo")
        bodies = [b"%d" % number * (number % 50) for number in range(1_000)]
        assert await asyncio.gather(*(call(body, timeout=20) for body in bodies)) == bodies


async def test_a_call_that_waits_for_a_server_finds_the_next_one() -> None:
    taken = listener()
    port = taken.getsockname()[1]
    first, next_one = _server({"/t/echo": echo}), _server({"/t/echo": echo})
    await first.start(taken, None)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_reconnect_backoff_ms", 100)]) as channel:
        call: Callable[..., Any] = channel.unary_unary("/t/echo")
        assert await call(b"first", timeout=10) == b"first"
        await first.stop(5)
        waiting = asyncio.ensure_future(call(b"next", timeout=10, wait_for_ready=True))
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"does not wait", timeout=10)
        await next_one.start(listener(port), None)
        assert await waiting == b"next"
    await next_one.stop(0)


def _server(methods: dict[str, Any]) -> RpcServer:
    return RpcServer(methods, LimitSettings())


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    ca.issue_cert(*NAMES).configure_cert(context)
    return context


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_no_call_fails_while_servers_follow_each_other(secure: bool, tls: ssl.SSLContext, ca: trustme.CA) -> None:
    """On one port, with clients that call without pause, some of them in the midst of calls."""
    served: set[bytes] = set()
    all_served = asyncio.Event()

    async def serve(call: Call) -> bytes | None:
        body = await call.read()
        assert body is not None
        if body[0] % 2:
            await asyncio.sleep(0.01)
        served.add(body[:1])
        if len(served) == _CLIENTS:
            all_served.set()
        return body

    async def calls(number: int) -> int:
        answered = 0
        options = [("grpc.use_local_subchannel_pool", 1), ("number", number)]
        credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
        async with (
            grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
            if secure
            else grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        ) as channel:
            call: Callable[..., Any] = channel.unary_unary("/t/serve")
            body = bytes([number]) * (200_000 if number == 1 else 100)
            while not stopped:
                assert await call(body, timeout=10) == body
                answered += 1
        return answered

    stopped = False
    context = tls if secure else None
    taken = listener()
    port = taken.getsockname()[1]
    server = _server({"/t/serve": serve})
    await server.start(taken, context)
    tasks = [asyncio.create_task(calls(number)) for number in range(_CLIENTS)]
    for _ in range(_STOPS):
        served.clear()
        all_served.clear()
        await asyncio.wait((*tasks, asyncio.ensure_future(all_served.wait())), return_when=asyncio.FIRST_COMPLETED)
        following = _server({"/t/serve": serve})
        await following.start(listener(port), context)
        await server.stop(10)
        server = following
    stopped = True
    assert min(await asyncio.gather(*tasks)) >= _STOPS
    await server.stop(0)


async def test_whom_the_server_has_not_seen_yet_when_it_ends_is_served() -> None:
    """A connection that only the kernel has made, and one whose client has said nothing."""
    taken = listener()
    server = _server({"/t/echo": echo})
    await server.start(taken, None)
    port = taken.getsockname()[1]
    async with Peer.to(port, b"") as silent:
        while not server._served.connections:
            await asyncio.sleep(0.01)
        with socket.create_connection(("127.0.0.1", port)) as unseen:
            unseen.sendall(OPENING + asked(1, b"unseen"))
            ending = asyncio.create_task(server.stop(10))
            silent.send(OPENING, asked(1, b"silent"))
            await silent.until_over(1)
            assert silent.bodies == {1: message(b"silent")} and silent.status(1) == "0"
            unseen.setblocking(False)
            came = b""
            async with asyncio.timeout(10):
                while message(b"unseen") not in came or _GOING not in came:
                    came += await asyncio.get_running_loop().sock_recv(unseen, 65_536)
        await silent.until_closed()
        assert [each[:2] for each in silent.goaways] == [(2**31 - 1, 0), (1, 0)]
    await ending


async def test_calls_that_do_not_end_are_ended_with_the_server() -> None:
    hanging = Hanging()
    taken = listener()
    server = _server({"/t/hangs": hanging})
    await server.start(taken, None)
    async with Peer.to(taken.getsockname()[1]) as peer:
        peer.send(asked(1, path="/t/hangs"))
        await peer.until_answered()
        await server.stop(0.1)
        await peer.until_closed()
        assert peer.status(1) == "14" and hanging.cancelled.is_set()


async def test_curl_posts_a_message(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(message(b"from curl"))
    async with serving({"/t/echo": echo}) as port:
        process = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--http2-prior-knowledge", "--header", "content-type: application/grpc",
            "--data-binary", f"@{tmp_path / 'body'}", f"http://127.0.0.1:{port}/t/echo",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        came, _ = await process.communicate()
    assert came == message(b"from curl") and process.returncode == 0


async def test_who_speaks_http_1_reads_what_the_port_speaks() -> None:
    taken = listener()
    server = _server({"/t/echo": echo})
    await server.start(taken, None)
    reader, writer = await asyncio.open_connection("127.0.0.1", taken.getsockname()[1])
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 505 ") and b"this port speaks gRPC" in answer
    writer.close()
    await server.stop(0)
