"""gzip and deflate, as HTTP and gRPC have them: what comes is bounded by what it becomes."""

import zlib

from gateway.errors import InvalidArgument, TooLarge, Unimplemented

# zlib's names of the formats: its own, which HTTP calls deflate, and gzip's.
_WINDOW_BITS = {"deflate": zlib.MAX_WBITS, "gzip": zlib.MAX_WBITS | 16}
_FAST = 1


class Inflater:
    """Gives back a compressed body piece by piece.

    Args:
        max_bytes: Of the whole, when it is decompressed.
        header: That named the encoding.

    Raises:
        Unimplemented: The encoding is neither gzip nor deflate.
    """

    def __init__(self, encoding: str, max_bytes: int, header: str = "content-encoding") -> None:
        if encoding not in _WINDOW_BITS:
            raise Unimplemented(f"{header} {encoding!r} is not taken; send gzip, deflate or the body as it is")
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._stream = zlib.decompressobj(_WINDOW_BITS[encoding])

    def feed(self, piece: bytes) -> bytes:
        """The next piece, decompressed; never more than one byte over the limit is made.

        Raises:
            TooLarge: The whole is over the limit.
            InvalidArgument: It is not of the encoding, or goes on after its end.
        """
        try:
            made = self._stream.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise InvalidArgument(f"the body is not {self._encoding}: {error}") from error
        if len(made) > self._left:
            raise TooLarge(f"the body is over {self._max_bytes} bytes when it is decompressed")
        if self._stream.unused_data:
            raise InvalidArgument(f"the body goes on after the end of its {self._encoding} data")
        self._left -= len(made)
        return made

    def end(self) -> None:
        """There are no more pieces.

        Raises:
            InvalidArgument: There should be.
        """
        if not self._stream.eof:
            raise InvalidArgument(f"the body ends within its {self._encoding} data")


def accepted(accept_encoding: str) -> str | None:
    """What Triton would compress with: the dearest of those it knows, the first of equals; None for not at all."""
    best, best_weight = None, 0.0
    for entry in accept_encoding.split(","):
        name, _, weight = entry.partition(";")
        name = name.strip().lower()
        try:
            value = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if value > best_weight and (name in _WINDOW_BITS or name == "identity"):
            best, best_weight = name, value
    return None if best == "identity" else best


def compress(body: bytes, encoding: str) -> bytes:
    """The body in gzip or deflate."""
    return zlib.compress(body, _FAST, _WINDOW_BITS[encoding])
