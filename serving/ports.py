"""Loopback ports for a server that binds them later."""

import socket
from types import TracebackType
from typing import Self

from serving.arguments import LOOPBACK


class ReservedPort:
    """A free TCP port that nothing else is given while this object is open.

    Its socket is bound and never listens: the kernel gives the port to no one who asks for any, and lets in a server
    that names it and sets SO_REUSEADDR, as Triton does. A server that dies finds it free again.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
