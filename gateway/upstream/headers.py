"""Header blocks of gRPC calls. Neither side keeps a table, so that equal headers are equal bytes and are read once."""

from functools import lru_cache
from urllib.parse import unquote

import grpc
from hpack import Decoder, Encoder, HPACKError

from gateway.http2.fields import pair

# grpc-timeout has at most eight digits.
_MAX_DIGITS = 10**8
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_KNOWN = 256
_SMALL = 128


def request(authority: str, path: str, user_agent: str) -> bytes:
    """The part of a call's block that is the same for all calls of a method."""
    encoder = Encoder()
    encoder.header_table_size = 0
    fixed = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": user_agent,
    }
    return bytes(encoder.encode(fixed.items(), huffman=False))


def timeout(left_s: float) -> bytes:
    """`grpc-timeout`."""
    microseconds = max(1, int(left_s * 1e6))
    if microseconds < _MAX_DIGITS:
        return pair("grpc-timeout", f"{microseconds}u")
    return pair("grpc-timeout", f"{min(microseconds // 1_000, _MAX_DIGITS - 1)}m")


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


__all__ = ["HPACKError", "pair", "request", "status", "timeout"]
