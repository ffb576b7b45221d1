"""Ports that several workers listen on."""

import contextlib
import socket
from collections.abc import Iterator

BACKLOG = 2_048


def listener(host: str, port: int) -> socket.socket:
    """A port that other workers listen on, too."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    return listener


def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that the kernel has made and nobody has seen yet: it resets those that are left when nobody listens."""
    listener.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection
