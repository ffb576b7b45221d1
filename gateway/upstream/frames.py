"""The frames of HTTP/2 (RFC 9113), as far as a client of unary gRPC calls meets them."""

from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length, of three bytes; kind, flags, stream.
FRAME = Struct(">BHBBI")
SETTING = Struct(">HI")
NUMBER = Struct(">I")
# Before a gRPC message: whether it is compressed, and its length.
MESSAGE = Struct(">BI")
# Kinds of frames.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
# Their flags.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# What SETTINGS names.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
# Error codes.
CANCEL = 8
REFUSED = 7


class ProtocolBroken(Exception):
    """The server sent what no server sends."""


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A whole frame."""
    size = len(payload)
    return FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def unpadded(payload: bytes, flags: int) -> bytes:
    """What is left of a payload without its padding."""
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
