"""The frames of HTTP/2 (RFC 9113), as far as gRPC meets them."""

from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length, of three bytes; kind, flags, stream.
FRAME = Struct(">BHBBI")
SETTING = Struct(">HI")
NUMBER = Struct(">I")
# Before a gRPC message: whether it is compressed, and its length.
MESSAGE = Struct(">BI")
# Kinds of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Their flags.
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# What SETTINGS names.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADERS = 1, 2, 3, 4, 5, 6
# Error codes.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED, CANCEL, COMPRESSION_ERROR, CALM = 5, 6, 7, 8, 9, 11
# What holds until SETTINGS say something else.
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
LARGEST_FRAME = 2**24 - 1
LARGEST_WINDOW = 2**31 - 1
LAST_STREAM = 2**31 - 1
ID_BITS = 0x7FFF_FFFF


class ProtocolBroken(Exception):
    """The other side sent what nobody sends.

    Attributes:
        code: Of HTTP/2.
    """

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


def wrong_size(size: int) -> ProtocolBroken:
    """A frame of so many bytes, which its kind cannot have."""
    return ProtocolBroken(f"a frame of {size} bytes", FRAME_SIZE_ERROR)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A whole frame."""
    size = len(payload)
    return FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def unpadded(payload: bytes, flags: int) -> bytes:
    """What is left of a payload without its padding.

    Raises:
        ProtocolBroken: The padding is as long as the payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolBroken("padding that is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
