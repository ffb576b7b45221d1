"""Bad callers and bad requests: a clear error each, and the server goes on."""

import queue
import socket
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from gateway.auth.keys import ApiKey
from tests.running import Server, images_input

_BLANK = np.zeros((1, 32, 32, 3), np.uint8)


def _status(error: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def _infer(server: Server, key: str | None, images: NDArray[np.uint8] = _BLANK) -> None:
    headers = {"authorization": f"Bearer {key}"} if key is not None else None
    with triton.InferenceServerClient(server.grpc) as client:
        client.infer("digits", images_input(images), headers=headers)


def _wrong_secret(server: Server) -> str:
    good = ApiKey.parse(server.key)
    assert good is not None
    return ApiKey(good.key_id, ApiKey.generate().secret).text


@pytest.mark.parametrize("case", ["none", "malformed", "unknown", "wrong secret"])
def test_who_is_not_known_is_refused(server: Server, case: str) -> None:
    key = {
        "none": None,
        "malformed": "tg_short",
        "unknown": ApiKey.generate().text,
        "wrong secret": _wrong_secret(server),
    }[case]
    with pytest.raises(InferenceServerException) as error:
        _infer(server, key)
    assert _status(error) == "UNAUTHENTICATED"
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    reply = httpx.post(f"http://{server.http}/v2/models/digits/infer", headers=headers, content=b"{}")
    assert reply.status_code == 401
    assert "API key" in reply.json()["error"]


def test_a_revoked_key_is_refused_within_five_seconds(server: Server) -> None:
    key = server.command("keys", "create", "short-lived").stdout.strip()
    _infer(server, key)
    parsed = ApiKey.parse(key)
    assert parsed is not None
    assert server.command("keys", "revoke", parsed.key_id).returncode == 0
    deadline = time.monotonic() + 5
    while True:
        try:
            _infer(server, key)
        except InferenceServerException as error:
            assert "UNAUTHENTICATED" in str(error.status())
            break
        assert time.monotonic() < deadline, "still served 5 s after it was revoked"
        time.sleep(0.1)


def test_a_key_without_the_scope_is_refused(server: Server) -> None:
    key = server.command("keys", "create", "reader", "--scope", "read").stdout.strip()
    with pytest.raises(InferenceServerException) as error:
        _infer(server, key)
    assert _status(error) == "PERMISSION_DENIED"
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as error:
        client.unload_model("digits", headers={"authorization": f"Bearer {key}"})
    assert _status(error) == "PERMISSION_DENIED"


def test_the_body_of_an_unknown_caller_is_not_waited_for(server: Server) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("model", "name", "dtype", "shape", "status", "words"),
    [
        ("digits", "images", "FP32", (1, 32, 32, 3), "INVALID_ARGUMENT", ("images", "FP32", "UINT8")),
        ("digits", "images", "UINT8", (1, 16, 16, 3), "INVALID_ARGUMENT", ("images", "[-1,32,32,3]", "[1,16,16,3]")),
        ("digits", "image", "UINT8", (1, 32, 32, 3), "INVALID_ARGUMENT", ("'image'", "takes images UINT8")),
        ("digits", "images", "UINT8", (33, 32, 32, 3), "INVALID_ARGUMENT", ("batch-size", "32")),
        ("absent", "images", "UINT8", (1, 32, 32, 3), "NOT_FOUND", ("absent",)),
    ],
)
def test_a_request_that_does_not_fit_is_told_what_does(
    server: Server, model: str, name: str, dtype: str, shape: tuple[int, ...], status: str, words: tuple[str, ...]
) -> None:
    tensor = triton.InferInput(name, list(shape), dtype)
    tensor.set_data_from_numpy(np.zeros(shape, triton_to_np_dtype(dtype)))
    with triton.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer(model, [tensor], headers=server.headers)
        assert _status(error) == status
        message = str(error.value.message())
        assert [word for word in words if word not in message] == []
        client.infer("digits", images_input(_BLANK), headers=server.headers)


def test_an_absent_version_is_not_found(server: Server) -> None:
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as error:
        client.infer("digits", images_input(_BLANK), model_version="99", headers=server.headers)
    assert _status(error) == "NOT_FOUND"


def test_an_unknown_output_is_named(server: Server) -> None:
    outputs = [triton.InferRequestedOutput("logits")]
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as error:
        client.infer("digits", images_input(_BLANK), outputs=outputs, headers=server.headers)
    assert _status(error) == "INVALID_ARGUMENT"
    assert "logits" in str(error.value.message()) and "gives scores" in str(error.value.message())


def test_what_belongs_to_the_operator_is_refused_with_a_reason(server: Server) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        for refused in (
            lambda: client.get_system_shared_memory_status(headers=server.headers),
            lambda: client.register_system_shared_memory("r", "/r", 1, headers=server.headers),
            lambda: client.update_log_settings({"log_verbose_level": 1}, headers=server.headers),
            lambda: client.get_trace_settings(headers=server.headers),
        ):
            with pytest.raises(InferenceServerException) as error:
                refused()  # type: ignore[no-untyped-call]  # The client is untyped.
            assert _status(error) == "UNIMPLEMENTED"


def test_a_region_of_shared_memory_cannot_be_named_in_a_call(server: Server) -> None:
    refused = "shared memory is not reachable through this server"
    (tensor,) = images_input(_BLANK)
    tensor.set_shared_memory("region", _BLANK.nbytes)
    output = triton.InferRequestedOutput("scores")
    output.set_shared_memory("region", 40)
    for inputs, outputs in (([tensor], None), (images_input(_BLANK), [output])):
        with triton.InferenceServerClient(server.grpc) as client:
            with pytest.raises(InferenceServerException) as error:
                client.infer("digits", inputs, outputs=outputs, headers=server.headers)
            assert (_status(error), error.value.message()) == ("INVALID_ARGUMENT", refused)
            told: queue.Queue[InferenceServerException] = queue.Queue()
            client.start_stream(lambda result, error: told.put(error), headers=server.headers)
            client.async_stream_infer("digits", inputs, outputs=outputs)
            assert told.get(timeout=10).message() == refused
            client.stop_stream()
    region = {"shared_memory_region": "region", "shared_memory_byte_size": 3_072}
    described = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "parameters": region}
    wanted = {"name": "scores", "parameters": region}
    for body in ({"inputs": [described | {"data": [0] * 3_072}]}, {"inputs": [], "outputs": [wanted]}):
        reply = httpx.post(f"http://{server.http}/v2/models/digits/infer", headers=server.headers, json=body)
        assert (reply.status_code, reply.json()["error"]) == (400, refused)


def test_a_load_with_overrides_is_refused(server: Server) -> None:
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as error:
        client.load_model("digits", headers=server.headers, config='{"backend": "python"}')
    assert _status(error) == "INVALID_ARGUMENT"
    assert "config" in str(error.value.message())


def test_a_body_over_the_limit_is_refused_by_its_length_alone(server: Server) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n"
            b"authorization: Bearer " + server.key.encode() + b"\r\n\r\n{"
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_a_deadline_that_passed_is_told(server: Server) -> None:
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as error:
        unseen = np.random.default_rng(155).integers(0, 256, _BLANK.shape, np.uint8)  # The cache may be in time.
        client.infer("digits", images_input(unseen), headers=server.headers, client_timeout=0.0001)
    assert _status(error) == "DEADLINE_EXCEEDED"
