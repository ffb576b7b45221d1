"""Reserved ports."""

import socket

import pytest

from serving.ports import ReservedPort


def test_reserved_ports_differ_and_a_server_may_bind_them() -> None:
    with ReservedPort() as one, ReservedPort() as other:
        assert one.number != other.number
        with socket.create_server(("127.0.0.1", one.number)) as server:
            assert server.getsockname()[1] == one.number


def test_a_reserved_port_is_given_to_no_one_who_does_not_share() -> None:
    with ReservedPort() as port, socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port.number))
