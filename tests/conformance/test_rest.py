"""REST, item by item: the gateway answers as Triton does, but for the exceptions that are listed."""

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conformance.conftest import MAX_BODY_BYTES, Endpoint, Gateway

_RAW = {"Inference-Header-Content-Length": "0"}


@dataclass(frozen=True, slots=True)
class Item:
    """A request."""

    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, endpoint: Endpoint) -> httpx.Response:
        method = "GET" if self.body is None else "POST"
        headers = {"accept-encoding": "identity", **self.headers}
        return httpx.request(method, f"http://{endpoint.http}{self.path}", content=self.body, headers=headers)


def _infer(data_type: str, data: str, shape: int = 1, **headers: str) -> Item:
    tensor = f'{{"name":"in_{data_type}","datatype":"{data_type}","shape":[{shape}],"data":{data}}}'
    return Item("/v2/models/echo/infer", f'{{"id":"7","inputs":[{tensor}]}}'.encode(), headers)


def _compressed(pack: Any, encoding: str) -> Item:
    plain = _infer("FP32", json.dumps([1.5] * 100), 100)
    return Item(plain.path, pack(plain.body), {"content-encoding": encoding})


def _raw(model: str, body: bytes) -> Item:
    return Item(f"/v2/models/{model}/infer", body, _RAW)


def _generate(model: str, body: Any, *, stream: bool = False) -> Item:
    return Item(f"/v2/models/{model}/generate{'_stream' if stream else ''}", json.dumps(body).encode())


SERVED = {
    "the server": Item("/v2"),
    "live": Item("/v2/health/live"),
    "ready": Item("/v2/health/ready"),
    "a model": Item("/v2/models/sum"),
    "a version": Item("/v2/models/sum/versions/1"),
    "a ready model": Item("/v2/models/sum/ready"),
    "the config": Item("/v2/models/sum/config"),
    "the index": Item("/v2/repository/index", b""),
    "the ready index": Item("/v2/repository/index", b'{"ready": true}'),
    "another protocol is wished for": _infer("INT8", "[1]", connection="upgrade, http2-settings", upgrade="h2c"),
    "no finite numbers": _infer("FP32", "[NaN, Infinity, -Infinity, 1.1]", 4),
    "whole numbers for floats": _infer("FP64", "[1, 2]", 2),
    "the largest": _infer("UINT64", "[18446744073709551615]"),
    "the least": _infer("INT64", "[-9223372036854775808]"),
    "booleans": _infer("BOOL", "[true, false]", 2),
    "text": _infer("BYTES", '["ü", ""]', 2),
    "uneven nesting": _infer("INT8", "[[1, 2], [3]]", 3),
    "no elements": _infer("FP32", "[]", 0),
    "no inputs": Item("/v2/models/echo/infer", b'{"inputs":[]}'),
    "gzip": _compressed(gzip.compress, "gzip"),
    "deflate": _compressed(zlib.compress, "deflate"),
    "raw": _raw("negate", np.arange(6, dtype=np.float32).tobytes()),
    "raw text": _raw("text", b"hello"),
    "generate": _generate("text", {"text": "hi", "id": "9", "parameters": {"depth": 1}}),
    "generate nested": _generate("text", {"parameters": {"text": "hi"}}),
    "generate lists": _generate("sum", {"a": [1, 2, 3, 4], "b": [1, 1, 1, 1]}),
    "generate an open size": _generate("negate", {"x": [1, 2, 3, 4]}),
    "generate one": _generate("repeat", {"times": 1}),
    "generate none": _generate("echo", {"in_FP32": []}),
    "events": _generate("repeat", {"times": 3, "id": "a"}, stream=True),
    "no events": _generate("repeat", {"times": 0}, stream=True),
    "an event of a plain model": _generate("text", {"text": "x"}, stream=True),
}

REFUSED = {
    "an absent model": Item("/v2/models/absent"),
    "an absent version": Item("/v2/models/sum/versions/7"),
    "an absent route": Item("/v2/nothing"),
    "inference on an absent model": Item("/v2/models/absent/infer", b'{"inputs":[]}'),
    "FP16 in JSON": _infer("FP16", "[1.5]"),
    "BF16 in JSON": _infer("BF16", "[1.5]"),
    "another encoding": Item("/v2/models/echo/infer", b"", {"content-encoding": "br"}),
    "an input given twice": Item(
        "/v2/models/echo/infer",
        b'{"inputs":[' + b",".join([b'{"name":"in_INT8","datatype":"INT8","shape":[1],"data":[1]}'] * 2) + b"]}",
    ),
    "raw for two inputs": _raw("sum", bytes(32)),
    "raw of a wrong size": _raw("negate", bytes(7)),
    "raw for an absent model": _raw("absent", b""),
    "a decoupled model": Item(
        "/v2/models/repeat/infer", b'{"inputs":[{"name":"times","datatype":"INT32","shape":[1],"data":[1]}]}'
    ),
    "the model's failure": _raw("negate", np.array([666, 0], np.float32).tobytes()),
    "generate two for one": _generate("text", {"text": ["a", "b"]}),
    "generate without the input": _generate("text", {"other": 1}),
    "generate a nested parameter": _generate("text", {"text": "a", "other": {"b": 1}}),
    "generate on an absent model": _generate("absent", {"a": 1}),
    "events of an absent model": _generate("absent", {"a": 1}, stream=True),
    "10,000 levels": Item("/v2/models/echo/infer", b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
}

# (Triton's status, the gateway's): what is the caller's fault is told as such, and nothing is served half.
EXCEPTIONS: dict[str, tuple[Item, int, int]] = {
    "no JSON": (Item("/v2/models/echo/infer", b"{"), 500, 400),
    "a string for a number": (_infer("FP32", '["NaN"]'), 500, 400),
    "a number for a string": (_infer("BYTES", "[1]"), 500, 400),
    "a number for a boolean": (_infer("BOOL", "[1]"), 500, 400),
    "a fraction for a whole number": (_infer("UINT8", "[1.5]"), 500, 400),
    "a number out of range": (_infer("UINT8", "[256]"), 200, 400),
    "a number beyond the largest": (_infer("FP32", "[1e39]"), 200, 400),
    "too few elements": (_infer("FP32", "[1]", 2), 500, 400),
    "Inf for Infinity": (_infer("FP64", "[Inf]"), 200, 400),
    "no inputs member": (Item("/v2/models/echo/infer", b"{}"), 500, 400),
    "generate with a wrong type": (_generate("text", {"text": 1}), 500, 400),
    "generate with many answers": (_generate("repeat", {"times": 3}), 200, 400),
    "generate with no answer": (_generate("repeat", {"times": 0}), 200, 400),
    "the model's own refusal": (_generate("repeat", {"times": -1}), 400, 500),
    "the model's own refusal in a stream": (_generate("repeat", {"times": -1}, stream=True), 400, 500),
    "a load of an absent model": (Item("/v2/repository/models/absent/load", b""), 500, 404),
    "a model that is not ready": (Item("/v2/models/absent/ready"), 400, 404),
    "a version that is not ready": (Item("/v2/models/sum/versions/7/ready"), 400, 404),
    "system shared memory": (Item("/v2/systemsharedmemory/status"), 200, 501),
    "a region": (Item("/v2/cudasharedmemory/region/a/register", b""), 500, 501),
    "trace": (Item("/v2/trace/setting"), 200, 501),
    "a model's trace": (Item("/v2/models/sum/trace/setting"), 200, 501),
    "logging": (Item("/v2/logging"), 200, 501),
}


def _content(response: httpx.Response) -> Any:
    """What a response says, in a form in which equal ones are equal."""
    body, length = response.content, response.headers.get("inference-header-content-length")
    if length is not None:
        return _members(body[: int(length)]), body[int(length) :]
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return [_members(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")]
    return _members(body)


def _members(text: bytes) -> Any:
    """JSON with NaN made equal to itself."""
    return json.loads(text, parse_constant=str) if text else None


@pytest.mark.parametrize("name", SERVED)
def test_what_triton_serves_the_gateway_serves_alike(bare: Endpoint, gateway: Gateway, name: str) -> None:
    expected, answer = SERVED[name].ask(bare), SERVED[name].ask(gateway)
    assert answer.status_code == expected.status_code == 200
    found, wanted = _content(answer), _content(expected)
    if name == "the server":
        hidden = {"system_shared_memory", "cuda_shared_memory", "trace", "logging"}
        wanted["extensions"] = [extension for extension in wanted["extensions"] if extension not in hidden]
    if name in ("live", "ready", "a ready model"):
        # The body of KServe's protocol, where Triton has none.
        assert wanted is None and True in found.values()
        return
    if "index" in name:
        found = [
            {key: value for key, value in model.items() if value} for model in found
        ]  # "reason" where it is empty.
    if name == "the config":
        found = _told(found, wanted)
    assert found == wanted


def _told(found: Any, wanted: Any) -> Any:
    """The members that Triton writes too: it leaves out some that have no value."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return {key: _told(value, wanted[key]) for key, value in found.items() if key in wanted}
    if isinstance(found, list) and isinstance(wanted, list):
        return [_told(value, other) for value, other in zip(found, wanted, strict=True)]
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_what_triton_refuses_the_gateway_refuses_alike(bare: Endpoint, gateway: Gateway, name: str) -> None:
    expected, answer = REFUSED[name].ask(bare), REFUSED[name].ask(gateway)
    assert answer.status_code == expected.status_code >= 400
    _is_an_error(answer)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_the_exceptions_are_these(bare: Endpoint, gateway: Gateway, name: str) -> None:
    item, theirs, ours = EXCEPTIONS[name]
    answer = item.ask(gateway)
    assert (item.ask(bare).status_code, answer.status_code) == (theirs, ours)
    _is_an_error(answer)


def _is_an_error(response: httpx.Response) -> None:
    message = response.json()["error"]
    assert message
    for internal in ("At:", "/tmp", "model.py(", "request id"):
        assert internal not in message


@pytest.mark.parametrize(
    "accept", ["gzip", "deflate", "gzip, deflate", "gzip;q=0.1, deflate;q=0.5", "br", "*", "gzip;q=0", "identity"]
)
def test_answers_are_compressed_as_triton_does_it(bare: Endpoint, gateway: Gateway, accept: str) -> None:
    item = _infer("FP32", json.dumps([1.5] * 100), 100, **{"accept-encoding": accept})
    expected, answer = item.ask(bare), item.ask(gateway)
    assert answer.headers.get("content-encoding") == expected.headers.get("content-encoding")
    assert answer.json()["outputs"] == expected.json()["outputs"]


def test_an_unload_is_seen_by_both(bare: Endpoint, gateway: Gateway) -> None:
    body = b'{"parameters": {"unload_dependents": true}}'
    assert Item("/v2/repository/models/text/unload", body).ask(gateway).status_code == 200
    try:
        for endpoint in (bare, gateway):
            assert Item("/v2/models/text/ready").ask(endpoint).status_code != 200
    finally:
        assert Item("/v2/repository/models/text/load", b"").ask(gateway).status_code == 200
    assert _generate("text", {"text": "a"}).ask(gateway).json()["upper"] == "A"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/models/text/unload", b'{"parameters": {"unload_dependents": 1}}'),
        ("/v2/repository/models/text/unload", b"[]"),
        ("/v2/repository/models/text/load", b'{"parameters": {"config": "{}"}}'),
        ("/v2/repository/index", b'{"ready": "yes"}'),
    ],
)
def test_a_repository_call_that_does_not_fit_is_refused(gateway: Gateway, path: str, body: bytes) -> None:
    answer = Item(path, body).ask(gateway)
    assert answer.status_code == 400
    _is_an_error(answer)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_is_bounded_by_what_it_becomes(gateway: Gateway, encoding: str) -> None:
    zeros = bytes(10 * MAX_BODY_BYTES)
    bomb = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    assert len(bomb) < MAX_BODY_BYTES / 50
    answer = Item("/v2/models/echo/infer", bomb, {"content-encoding": encoding}).ask(gateway)
    assert answer.status_code == 413
    _is_an_error(answer)
