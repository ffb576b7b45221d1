"""Ports for a server that binds them later."""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from serving.arguments import LOOPBACK


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens; a port of 0 is a free one."""

    host: str = LOOPBACK
    grpc_port: int = 0
    metrics_port: int = 0

    @property
    def reachable_host(self) -> str:
        """An address of this machine that leads there."""
        return {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)


class ReservedPort:
    """A TCP port that nothing else is given while this object is open.

    Its socket is bound and never listens: the kernel gives the port to no one who asks for any, and lets in a server
    that names it and sets SO_REUSEADDR, as Triton does. A server that dies finds it free again.
    """

    def __init__(self, host: str = LOOPBACK, number: int = 0) -> None:
        """Take the port.

        Args:
            number: 0: a free one.

        Raises:
            OSError: It is taken, or the host is not an address of this machine.
        """
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, number))
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
