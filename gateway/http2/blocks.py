"""Header blocks that come in several frames."""

from gateway.http2 import frames

_MAX_BYTES = 16 << 20


class Block:
    """A block of which more is to come.

    Args:
        number: Of its stream.
        flags: Of its first frame.
        max_kept_bytes: A larger one is read on, so that the next frames are found, and not kept.

    Attributes:
        size: Bytes that came.
    """

    __slots__ = ("_max_kept_bytes", "_parts", "flags", "number", "size")

    def __init__(self, number: int, flags: int, part: bytes, max_kept_bytes: int) -> None:
        self.number = number
        self.flags = flags
        self.size = len(part)
        self._parts = [part]
        self._max_kept_bytes = max_kept_bytes

    def add(self, part: bytes) -> None:
        """The next part came.

        Raises:
            ProtocolBroken: The block is far too large.
        """
        self.size += len(part)
        if self.size > _MAX_BYTES:
            raise frames.ProtocolBroken(f"a header block of over {_MAX_BYTES} bytes", frames.CALM)
        if self.size > self._max_kept_bytes:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def whole(self) -> bytes | None:
        """All of it, when its last part came; None where it was too large to be kept."""
        return None if self.size > self._max_kept_bytes else b"".join(self._parts)
