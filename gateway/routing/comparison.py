"""Whether two versions say the same."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferResponse
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

# What `classification` gives: "score:index:label".
_RANKED = re.compile(rb"^[-+.\deEnaif]+:(\d+)(:|$)")
_RELATIVE, _ABSOLUTE = 1e-2, 1e-3


def agree(one: bytes, other: bytes) -> bool:
    """Whether the outputs have the same names, types and shapes, and say the same.

    Scores of another version are never quite the same. So of floats the greatest along the last axis must be at the same
    place; where there is but one along it, it must differ by no more than a hundredth. Of ranked classes the first must
    be the same. All else must be equal.
    """
    answers = [ModelInferResponse.FromString(each) for each in (one, other)]
    outputs = [
        {
            tensor.name: (tensor.datatype, tuple(tensor.shape), raw)
            for tensor, raw in zip(a.outputs, a.raw_output_contents)
        }
        for a in answers
    ]
    if outputs[0].keys() != outputs[1].keys():
        return False
    return all(_same(outputs[0][name], outputs[1][name]) for name in outputs[0])


_Output = tuple[str, tuple[int, ...], bytes]


def _same(one: _Output, other: _Output) -> bool:
    datatype, shape, raw = one
    if other[:2] != (datatype, shape):
        return False
    if raw == other[2]:
        return True
    if datatype == "BYTES":
        return _first_of_each(raw, shape) == _first_of_each(other[2], shape)
    if datatype not in ("FP16", "FP32", "FP64"):
        return False
    scores = [np.frombuffer(each, triton_to_np_dtype(datatype)).reshape(shape) for each in (raw, other[2])]
    return _same_floats(*scores)


def _same_floats(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> bool:
    if one.ndim and one.shape[-1] > 1:
        return bool(np.array_equal(one.argmax(-1), other.argmax(-1)))
    return bool(np.allclose(one, other, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True))


def _first_of_each(raw: bytes, shape: tuple[int, ...]) -> list[list[bytes]]:
    """The texts of each row; of ranked classes the index of the first alone."""
    rows: list[list[bytes]] = deserialize_bytes_tensor(raw).reshape(-1, shape[-1] if shape else 1).tolist()
    return [[ranked[1]] if (ranked := _RANKED.match(row[0])) else row for row in rows if row]
