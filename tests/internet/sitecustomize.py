"""Lets processes that have this folder on PYTHONPATH see a small internet of `mediahosts`: names with public addresses,
behind which a port on loopback answers. Only name look-up and connecting are replaced, so all checks stay in force."""

import json
import os
import socket
from typing import Any

_NAMES: dict[str, str] = json.loads(os.environ.get("TEST_INTERNET_NAMES", "{}"))
_PORTS: dict[str, int] = json.loads(os.environ.get("TEST_INTERNET_PORTS", "{}"))
_resolve, _connect = socket.getaddrinfo, socket.create_connection


def _getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    if host in _NAMES:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (_NAMES[host], port))]
    return _resolve(host, port, *args, **kwargs)


def _create_connection(address: Any, *args: Any, **kwargs: Any) -> socket.socket:
    place = ("127.0.0.1", _PORTS[address[0]]) if address[0] in _PORTS else address
    return _connect(place, *args, **kwargs)


if _NAMES:
    socket.getaddrinfo, socket.create_connection = _getaddrinfo, _create_connection
