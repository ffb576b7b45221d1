import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferResponse
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from gateway.routing.comparison import agree


def _answer(**outputs: NDArray[np.generic]) -> bytes:
    response = ModelInferResponse()
    for name, values in outputs.items():
        datatype = np_to_triton_dtype(values.dtype)
        response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        raw = serialize_byte_tensor(values).item() if datatype == "BYTES" else values.tobytes()
        response.raw_output_contents.append(raw)
    return bytes(response.SerializeToString())


def _f(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def _b(*rows: list[str]) -> NDArray[np.object_]:
    return np.array([[text.encode() for text in row] for row in rows], np.object_)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (_f([1, 5, 2], [9, 0, 0]), _f([2, 3, 2.5], [4, 1, 1]), True),
        (_f([1, 5, 2], [9, 0, 0]), _f([2, 3, 2.5], [1, 4, 1]), False),
        (_f([1.0]), _f([1.005]), True),
        (_f([1.0]), _f([1.1]), False),
        (_f([np.nan]), _f([np.nan]), True),
        (_f([1, 2]), _f([1, 2, 3]), False),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), _f([1, 2]), False),
        (_b(["0.9:3:three", "0.1:4:four"]), _b(["0.7:3:three", "0.2:5:five"]), True),
        (_b(["0.9:3:three"]), _b(["0.9:4:four"]), False),
        (_b([""], ["broken"]), _b([""], ["broken"]), True),
        (_b(["a", "b"]), _b(["a", "c"]), False),
    ],
)
def test_versions_agree_when_they_decide_the_same(
    one: NDArray[np.generic], other: NDArray[np.generic], same: bool
) -> None:
    assert agree(_answer(y=one), _answer(y=other)) is same


def test_other_outputs_are_no_agreement() -> None:
    assert not agree(_answer(y=_f([1])), _answer(z=_f([1])))
