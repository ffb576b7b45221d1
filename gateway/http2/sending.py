"""A message on its way out."""

from gateway.http2 import frames


class Outgoing:
    """What of a gRPC message is still to be sent. A large one is not copied for the few bytes before it."""

    __slots__ = ("_left", "_prefix")

    def __init__(self, message: bytes) -> None:
        self._prefix = frames.MESSAGE.pack(0, len(message))
        self._left = memoryview(message)

    def __len__(self) -> int:
        return len(self._prefix) + len(self._left)

    def fits(self, room: int) -> bool:
        """Whether any of it goes into so many bytes: what stands before the message goes with some of the message."""
        return room > 0 and room >= min(len(self), len(self._prefix) + 1)

    def next(self, number: int, room: int, max_frame: int, last_flags: int = 0) -> tuple[bytes | memoryview, ...]:
        """The next frame, in parts, which counts as what the whole became shorter by; nothing where there is no room.

        Args:
            room: Bytes that the other side takes.
            last_flags: Those of the last frame.
        """
        if not self.fits(room):
            return ()
        ahead, size = len(self._prefix), min(len(self), max_frame, room)
        part, self._left = self._left[: size - ahead], self._left[size - ahead :]
        prefix, self._prefix = self._prefix, b""
        flags = 0 if self._left else last_flags
        return frames.FRAME.pack(size >> 16, size & 0xFFFF, frames.DATA, flags, number), prefix, part
