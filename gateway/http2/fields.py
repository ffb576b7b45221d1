"""Fields of header blocks (RFC 7541) that are in no table, so that equal fields are equal bytes."""

from hpack.hpack import encode_integer

_LENGTH_BITS = 7


def pair(name: str, value: str) -> bytes:
    """A field."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes(encode_integer(len(encoded), _LENGTH_BITS)) + encoded
