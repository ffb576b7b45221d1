"""Header blocks of gRPC calls. Neither side keeps a table, so that equal headers are equal bytes and are read once."""

from functools import lru_cache
from urllib.parse import unquote

import grpc
from hpack import Decoder, HPACKError

# Of HPACK's static table.
_METHOD_POST, _SCHEME_HTTP, _AUTHORITY, _PATH, _CONTENT_TYPE, _USER_AGENT = 3, 6, 1, 4, 31, 58
_SAME = 0x80
_NAMED_MAX = 15
_LENGTH_MAX = 127
# grpc-timeout has at most eight digits.
_MAX_DIGITS = 10**8
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_KNOWN = 256
_SMALL = 128


def request(authority: str, path: str, user_agent: str) -> bytes:
    """The part of a call's block that is the same for all calls of a method."""
    return b"".join(
        (
            bytes((_SAME | _METHOD_POST, _SAME | _SCHEME_HTTP)),
            _named(_PATH, path),
            _named(_AUTHORITY, authority),
            _named(_CONTENT_TYPE, "application/grpc"),
            _named(_USER_AGENT, user_agent),
            pair("te", "trailers"),
        )
    )


def timeout(left_s: float) -> bytes:
    """`grpc-timeout`."""
    microseconds = max(1, int(left_s * 1e6))
    if microseconds < _MAX_DIGITS:
        return pair("grpc-timeout", f"{microseconds}u")
    return pair("grpc-timeout", f"{min(microseconds // 1_000, _MAX_DIGITS - 1)}m")


def pair(name: str, value: str) -> bytes:
    """A header that is in no table."""
    return b"\0" + _text(name) + _text(value)


def status(block: bytes) -> tuple[grpc.StatusCode, str] | None:
    """The status that ends a call, and its message; None where the block has none.

    Raises:
        HPACKError: The block cannot be read.
    """
    return (_known if len(block) <= _SMALL else _read)(block)


def _read(block: bytes) -> tuple[grpc.StatusCode, str] | None:
    said = {str(name): str(value) for name, value in Decoder().decode(block)}
    if (code := said.get("grpc-status")) is not None:
        known = _CODES.get(int(code) if code.isdecimal() else -1, grpc.StatusCode.UNKNOWN)
        return known, unquote(said.get("grpc-message", ""))
    if (http := said.get(":status", "200")) != "200":
        return grpc.StatusCode.UNAVAILABLE, f"HTTP status {http}"
    return None


# Not those whose message is a caller's.
_known = lru_cache(_MAX_KNOWN)(_read)


def _named(index: int, value: str) -> bytes:
    return _integer(index, _NAMED_MAX) + _text(value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _integer(len(encoded), _LENGTH_MAX) + encoded


def _integer(value: int, prefix_max: int) -> bytes:
    """HPACK's, in a first byte whose other bits are 0."""
    if value < prefix_max:
        return bytes((value,))
    encoded = bytearray((prefix_max,))
    value -= prefix_max
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


__all__ = ["HPACKError", "pair", "request", "status", "timeout"]
