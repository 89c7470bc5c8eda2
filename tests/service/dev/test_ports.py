"""Ports: who has one, and which is free."""

import os
import socket
from pathlib import Path

from service.dev import ports
from service.dev.stack import Ports


def test_the_holder_of_a_port_is_named_with_its_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = ports.holder(server.getsockname()[1])
    assert holder.pid == os.getpid()
    assert str(holder).startswith(f"process {os.getpid()} (")
    assert "python" in holder.command


def test_a_listener_on_ipv6_is_found_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert ports.holder(server.getsockname()[1]).pid == os.getpid()


def test_nobody_holds_a_free_port() -> None:
    assert ports.holder(ports.free_port()).pid is None


def test_the_next_free_port_skips_taken_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.next_free_port(port - 1) != port


def test_a_remembered_port_is_kept_until_somebody_takes_it(tmp_path: Path) -> None:
    first = Ports(tmp_path)
    port = first.take("postgres")
    first.save()
    assert Ports(tmp_path).take("postgres") == port
    with socket.create_server(("127.0.0.1", port)):
        assert Ports(tmp_path).take("postgres") != port


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    known = Ports(tmp_path)
    taken = [known.take(name) for name in ("a", "b", "c")]
    assert len(set(taken)) == 3


def test_a_broken_memory_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    assert Ports(tmp_path).take("postgres") in ports.CHOICES
