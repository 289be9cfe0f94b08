"""Which addresses strangers may send this machine to; and that it connects to the address it has looked at."""

import socket
from typing import Any

import pytest

from avere_ray import public_hosts
from avere_ray.public_hosts import NotPublic, connect_to_public, is_public


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d70e", True),
        ("192.0.0.192", False),  # metadata of Oracle's cloud
        ("168.63.129.16", False),  # Azure's services for its machines
        ("168.63.129.17", True),
        ("::ffff:168.63.129.16", False),
        ("fec0::1", False),
        ("64:ff9b:1::a9fe:a9fe", False),
        ("::169.254.169.254", False),
        ("::8.8.8.8", False),
        ("::ffff:0:7f00:1", False),
    ],
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[Any]:
    """Lets every name stand for these addresses; the list fills with what is connected to."""
    connected: list[Any] = []
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 443)) for a in addresses]
    monkeypatch.setattr(public_hosts.socket, "getaddrinfo", lambda *a, **k: found)
    monkeypatch.setattr(public_hosts.socket, "create_connection", lambda at, *rest: connected.append(at))
    return connected


def test_the_address_that_was_looked_at_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolving(monkeypatch, "93.184.215.14")
    connect_to_public(("media.example", 443), 5.0)
    assert connected == [("93.184.215.14", 443)]


def test_one_private_address_is_enough_to_refuse_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolving(monkeypatch, "93.184.215.14", "169.254.169.254")
    with pytest.raises(NotPublic, match="not public"):
        connect_to_public(("media.example", 443), 5.0)
    assert connected == []
