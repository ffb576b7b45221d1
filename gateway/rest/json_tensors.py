"""JSON tensors: nested lists in, flat lists out, as the KServe v2 REST protocol has them."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.tensors import DataType, TensorSpec
from gateway.errors import InvalidArgument

_NOT_IN_JSON = frozenset({DataType.FP16, DataType.BF16})


def to_raw(name: str, data_type: DataType, shape: list[int], data: Any) -> bytes:
    """The wire bytes of a tensor given as JSON.

    Args:
        data: Numbers, booleans or strings, flat or nested as the shape is; row-major either way.

    Raises:
        InvalidArgument: An element is not of the type or out of its range, or their count is not the shape's.
    """
    if data_type in _NOT_IN_JSON:
        raise InvalidArgument(f"input {name!r}: {data_type} travels as binary data only")
    if not isinstance(data, list):
        raise InvalidArgument(f"input {name!r}: data must be a list")
    elements = _flat(data)
    count = element_count(shape)
    if len(elements) != count:
        raise InvalidArgument(f"input {name!r}: data has {len(elements)} elements, shape {shape} has {count}")
    if data_type is DataType.BYTES:
        return _strings(name, elements)
    return _numbers(name, data_type, elements).tobytes()


def from_raw(name: str, data_type: DataType, raw: bytes) -> list[Any]:
    """The elements of a tensor as JSON has them, flat.

    Raises:
        InvalidArgument: The type has no JSON form; the caller must ask for binary data.
    """
    if data_type in _NOT_IN_JSON:
        raise InvalidArgument(f"output {name!r}: {data_type} travels as binary data only; ask for it with binary_data")
    if data_type is DataType.BYTES:
        return [element.decode("utf-8", "replace") for element in split_bytes(raw)]
    elements: list[Any] = np.frombuffer(raw, data_type.numpy).tolist()
    return elements


def split_bytes(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: each has its length before it, 4 bytes, little-endian.

    Raises:
        InvalidArgument: A length goes past the end.
    """
    elements, position = [], 0
    while position < len(raw):
        if position + 4 > len(raw):
            raise InvalidArgument("a BYTES tensor ends within a length")
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + length > len(raw):
            raise InvalidArgument(f"a BYTES element says {length} bytes, {len(raw) - position} are left")
        elements.append(raw[position : position + length])
        position += length
    return elements


def join_bytes(elements: list[bytes]) -> bytes:
    """A BYTES tensor of these elements."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))


def shape_of(spec: TensorSpec, batches: bool, count: int) -> list[int]:
    """The shape of an input of which only the number of elements is known, with a batch of 1 where there is one.

    Raises:
        InvalidArgument: More than one size is open, or the elements do not fill the shape.
    """
    known = element_count([size for size in spec.dims if size >= 0])
    open_sizes = sum(size < 0 for size in spec.dims)
    if open_sizes > 1:
        raise InvalidArgument(f"input {spec.name!r}: its shape {list(spec.dims)} has more than one size to be told")
    if count % known if open_sizes and known else count != known:
        raise InvalidArgument(f"input {spec.name!r}: {count} elements do not fill its shape {list(spec.dims)}")
    sizes = [size if size >= 0 else count // known if known else 0 for size in spec.dims]
    return [1, *sizes] if batches else sizes


def element_count(shape: list[int]) -> int:
    """How many elements a shape has."""
    count = 1
    for size in shape:
        count *= size
    return count


def _flat(data: list[Any]) -> list[Any]:
    """Unnest, level by level; without recursion, so that depth costs nothing."""
    while any(isinstance(element, list) for element in data):
        data = [inner for element in data for inner in (element if isinstance(element, list) else [element])]
    return data


def _strings(name: str, elements: list[Any]) -> bytes:
    for element in elements:
        if not isinstance(element, str):
            raise InvalidArgument(f"input {name!r}: a BYTES element must be a string, not {element!r:.40}")
    return join_bytes([element.encode() for element in elements])


def _numbers(name: str, data_type: DataType, elements: list[Any]) -> NDArray[Any]:
    dtype = data_type.numpy
    assert dtype is not None  # BF16, the only type without one, was refused.
    if data_type is DataType.BOOL:
        wanted: tuple[type, ...] = (bool,)
    else:
        wanted = (int,) if dtype.kind in "iu" else (int, float)
    for element in elements:
        if type(element) not in wanted:
            raise InvalidArgument(f"input {name!r}: {element!r:.40} is not of type {data_type}")
    if dtype.kind in "iu" and elements:
        limits = np.iinfo(dtype)
        for bound in (min(elements), max(elements)):
            if not limits.min <= bound <= limits.max:
                raise InvalidArgument(f"input {name!r}: {bound} is not in {data_type}'s {limits.min}..{limits.max}")
    try:
        with np.errstate(over="raise"):
            return np.array(elements, dtype)
    except FloatingPointError as error:
        raise InvalidArgument(f"input {name!r}: an element is beyond the largest number of {data_type}") from error
