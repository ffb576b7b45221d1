"""Every data type and shape, through every client, comes back from Triton and from the gateway as it went in."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.conformance.clients import CLIENTS, Infer, Tensors, int32
from tests.conformance.conftest import Endpoint
from tests.conformance.models import DATA_TYPES

_TEXTS = np.array([b"", "Tidehöhe".encode(), b"x" * 300], np.object_)
_RAW_TEXTS = np.array([b"a\0b", b"\xff\xfe"], np.object_)


def _values(data_type: str) -> NDArray[Any]:
    if data_type == "BYTES":
        return _TEXTS
    if data_type == "BOOL":
        return np.array([True, False, True])
    if data_type == "BF16":
        return np.array([0.5, -2, 1024], ml_dtypes.bfloat16)
    dtype = np.dtype(data_type.lower().replace("fp", "float"))
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([limits.min, 0, 1, limits.max], dtype)


@pytest.fixture(params=CLIENTS)
def infer(request: pytest.FixtureRequest) -> Infer:
    return CLIENTS[request.param]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_every_type_comes_back(endpoint: Endpoint, client: str, data_type: str) -> None:
    tensors = {f"in_{data_type}": (data_type, _values(data_type))}
    if client == "http, JSON" and data_type in ("FP16", "BF16"):
        with pytest.raises(InferenceServerException):
            CLIENTS[client](endpoint, "echo", tensors)
        return
    result = CLIENTS[client](endpoint, "echo", tensors, request_id="7")
    answer = result.as_numpy(f"out_{data_type}")
    if client == "http, JSON" and data_type == "BYTES":  # The client gives text.
        answer = np.array([text.encode() for text in answer], np.object_)
    np.testing.assert_array_equal(answer, _values(data_type))


def test_optional_inputs_are_left_out(endpoint: Endpoint, infer: Infer) -> None:
    result = infer(endpoint, "echo", {"in_INT32": int32(1, 2), "in_BOOL": ("BOOL", np.array([True]))})
    np.testing.assert_array_equal(result.as_numpy("out_INT32"), [1, 2])
    np.testing.assert_array_equal(result.as_numpy("out_BOOL"), [True])
    assert result.as_numpy("out_FP32") is None


@pytest.mark.parametrize("data_type", ["FP32", "UINT8", "BYTES"])
def test_a_tensor_of_no_elements_comes_back(endpoint: Endpoint, infer: Infer, data_type: str) -> None:
    result = infer(endpoint, "echo", {f"in_{data_type}": (data_type, _values(data_type)[:0])})
    assert result.as_numpy(f"out_{data_type}").shape == (0,)


def test_what_is_no_finite_number_comes_back(endpoint: Endpoint, infer: Infer) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1.1], np.float32)
    tensors: Tensors = {"in_FP32": ("FP32", values), "in_FP64": ("FP64", values.astype(np.float64))}
    result = infer(endpoint, "echo", tensors)
    np.testing.assert_array_equal(result.as_numpy("out_FP32"), values)
    np.testing.assert_array_equal(result.as_numpy("out_FP64"), values.astype(np.float64))


@pytest.mark.parametrize("client", ["grpc", "grpc.aio", "http", "http.aio"])
def test_bytes_need_not_be_text(endpoint: Endpoint, client: str) -> None:
    result = CLIENTS[client](endpoint, "echo", {"in_BYTES": ("BYTES", _RAW_TEXTS)})
    np.testing.assert_array_equal(result.as_numpy("out_BYTES"), _RAW_TEXTS)


def test_sums_and_differences(endpoint: Endpoint, infer: Infer) -> None:
    a, b = np.arange(8, dtype=np.int32).reshape(2, 4), np.full((2, 4), 3, np.int32)
    result = infer(endpoint, "sum", {"a": ("INT32", a), "b": ("INT32", b)}, request_id="7")
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    response = result.get_response()
    head = response if isinstance(response, dict) else {"id": response.id, "model_version": response.model_version}
    assert (head["id"], head["model_version"]) == ("7", "1")


@pytest.mark.parametrize("client", ["http", "http.aio"])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_http_bodies_may_be_compressed_both_ways(endpoint: Endpoint, client: str, algorithm: str) -> None:
    values = np.zeros(10_000, np.float32)
    options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    result = CLIENTS[client](endpoint, "echo", {"in_FP32": ("FP32", values)}, **options)
    np.testing.assert_array_equal(result.as_numpy("out_FP32"), values)


@pytest.mark.parametrize("client", ["grpc", "grpc.aio"])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_messages_may_be_compressed(endpoint: Endpoint, client: str, algorithm: str) -> None:
    values = np.zeros(10_000, np.float32)
    result = CLIENTS[client](endpoint, "echo", {"in_FP32": ("FP32", values)}, compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("out_FP32"), values)


def test_a_sequence_keeps_its_state(endpoint: Endpoint, infer: Infer) -> None:
    sequence = 1 + list(CLIENTS.values()).index(infer) + (100 if endpoint.name == "gateway" else 0)
    totals = [
        infer(
            endpoint,
            "accumulate",
            {"x": ("INT32", np.array([[x]], np.int32))},
            sequence_id=sequence,
            sequence_start=x == 1,
            sequence_end=x == 5,
        )
        .as_numpy("total")
        .item()
        for x in range(1, 6)
    ]
    assert totals == [1, 3, 6, 10, 15]
