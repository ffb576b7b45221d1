"""The public ports, held so that every worker can share them and nothing else can take them."""

import contextlib
import errno
import socket
from collections.abc import Iterator

from tidegate.errors import CommandError


@contextlib.contextmanager
def held(host: str, port: int, setting: str) -> Iterator[int]:
    """Hold a TCP port for the length of the block; its number.

    The socket is bound with SO_REUSEPORT and never listens, so that no connection comes to it and the workers, which
    set the same option, may listen on the port.

    Args:
        port: 0: a free one.
        setting: The environment variable that names it, for the error.

    Raises:
        CommandError: It is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            if port:
                _must_be_free(family, host, port)
            holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CommandError(f"port {port} of {host} is taken; set {setting} to another, or to 0") from error
            raise CommandError(
                f"{host}:{port} cannot be used: {error.strerror}; check TIDEGATE_HOST, {setting}"
            ) from error
        yield holder.getsockname()[1]


def _must_be_free(family: int, host: str, port: int) -> None:
    """Bind without SO_REUSEPORT first: with it, another server's port would be shared without a word."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
