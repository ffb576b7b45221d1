"""Tensor names, types and shapes, in the words of the KServe v2 protocol."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from tritonclient.grpc import model_config_pb2


class DataType(StrEnum):
    """A tensor's type as the wire spells it."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @classmethod
    def from_config(cls, value: int) -> Self:
        """Read Triton's `DataType` enumeration, which says STRING where the wire says BYTES.

        Raises:
            ValueError: TYPE_INVALID, or a number Triton does not define.
        """
        name = model_config_pb2.DataType.Name(value).removeprefix("TYPE_")
        return cls("BYTES" if name == "STRING" else name)

    @property
    def config_name(self) -> str:
        """The name in a config.pbtxt, for example TYPE_UINT8."""
        return "TYPE_STRING" if self is DataType.BYTES else f"TYPE_{self.value}"

    @property
    def config_value(self) -> int:
        """The number of Triton's `DataType` enumeration."""
        return int(model_config_pb2.DataType.Value(self.config_name))

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """The numpy type of an element; None for BF16, which numpy has not. BYTES elements are objects."""
        return _NUMPY.get(self)

    @property
    def item_bytes(self) -> int:
        """The size of an element on the wire; of BYTES, whose elements are of any, that of the length before each."""
        if self is DataType.BYTES:
            return 4
        return 2 if self.numpy is None else self.numpy.itemsize


_NUMPY: dict[DataType, np.dtype[Any]] = {
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UINT8: np.dtype(np.uint8),
    DataType.UINT16: np.dtype(np.uint16),
    DataType.UINT32: np.dtype(np.uint32),
    DataType.UINT64: np.dtype(np.uint64),
    DataType.INT8: np.dtype(np.int8),
    DataType.INT16: np.dtype(np.int16),
    DataType.INT32: np.dtype(np.int32),
    DataType.INT64: np.dtype(np.int64),
    DataType.FP16: np.dtype(np.float16),
    DataType.FP32: np.dtype(np.float32),
    DataType.FP64: np.dtype(np.float64),
    DataType.BYTES: np.dtype(np.object_),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        dims: The shape; -1 where any size goes. Without the batch dimension where the model batches.
    """

    name: str
    data_type: DataType
    dims: tuple[int, ...]


IMAGES = "images"
SCORES = "scores"
ENCODED = "encoded"
ERROR = "error"
