"""Keeps a server's replicas off the network where Ray itself is on this machine alone.

Every replica of Ray Serve opens a gRPC server for calls between deployments, on all interfaces whatever the node's
address is, and what it is sent it unpickles. Nothing here calls it; on a node whose address is 127.0.0.1 it listens
there. On a cluster it stays as it is, behind the token of RAY_AUTH_MODE.
"""

import functools
from collections.abc import Callable
from typing import Any

from actors.serving.guard import is_loopback

_ANYWHERE = "[::]:"


def bind_to_the_node(replica: Any, node: str) -> None:
    """For a replica's process, before it is ready.

    Args:
        replica: Ray Serve's module of that name.
        node: the node's address in Ray.
    """
    if is_loopback(node):
        replica.add_port_to_grpc_server = bound_to(node, replica.add_port_to_grpc_server)


def bound_to(node: str, bind: Callable[[Any, str], int]) -> Callable[[Any, str], int]:
    """A `bind(server, address)` that takes the node's address where it was told all interfaces."""

    @functools.wraps(bind)
    def bound(server: Any, address: str) -> int:
        return bind(server, address.replace(_ANYWHERE, f"{node}:") if address.startswith(_ANYWHERE) else address)

    return bound
