"""Connections to public addresses alone, for media that strangers name.

A name on an allow-list may still lead into a private network, on purpose or by a change of its DNS entry. So a name is
resolved once, every address is looked at, and one of those very addresses is connected to.
"""

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib.request


class NotPublic(Exception):
    """A host that may not be asked; the message names it."""


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All IPv6 addresses that the internet has given out so far; others are within a site, or wrap an IPv4 address."""
_INSIDE_CLOUDS = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # Oracle's metadata service at .192; kept for protocols
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's services for its machines
)
"""What the table of public addresses holds and a machine of a cloud reaches in its own network."""


def public_handlers() -> "tuple[urllib.request.BaseHandler, ...]":
    """Connect to public addresses alone: the very address that was looked at is the one connected to, and no proxy of
    the environment stands between."""
    import http.client
    import urllib.request

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            self._create_connection = connect_to_public  # type: ignore[attr-defined]
            super().connect()

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            self._create_connection = connect_to_public  # type: ignore[attr-defined]
            super().connect()

    class OpenPlain(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(Plain, req)

    class OpenSecure(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(Secure, req, context=self._context)  # type: ignore[attr-defined]

    return OpenPlain(), OpenSecure(), urllib.request.ProxyHandler({})


def connect_to_public(
    address: tuple[str, int], timeout: float | None = None, source_address: Any = None
) -> socket.socket:
    """As `socket.create_connection`, for a host all of whose addresses are public.

    Raises:
        NotPublic: one of them is not.
    """
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        if not is_public(str(place[0])):
            raise NotPublic(f"host {host} stands for an address that is not public")
    error: OSError | None = None
    for *_, place in found:
        try:
            return socket.create_connection((str(place[0]), port), timeout, source_address)
        except OSError as failed:
            error = failed
    raise error or OSError(f"{host} has no address")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv6 address that wraps an IPv4 one counts as that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None and ip not in _UNICAST:
            return False
        ip = inner or ip
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _INSIDE_CLOUDS)
