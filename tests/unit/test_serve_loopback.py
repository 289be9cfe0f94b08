"""A replica's own gRPC server listens where the node is, not on all interfaces."""

import pytest
from ray.serve._private import replica

from actors.serving.loopback import bind_to_the_node, bound_to


def test_all_interfaces_become_the_nodes_address() -> None:
    bound = bound_to("127.0.0.1", lambda server, address: len(address))
    assert bound(None, "[::]:0") == len("127.0.0.1:0")
    assert bound(None, "10.0.0.10:55555") == len("10.0.0.10:55555")


@pytest.mark.parametrize(("node", "changed"), [("127.0.0.1", True), ("10.0.0.5", False)])
def test_a_node_of_a_cluster_stays_as_it_is(node: str, changed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = replica.add_port_to_grpc_server  # the name by which Ray Serve binds
    monkeypatch.setattr(replica, "add_port_to_grpc_server", before)
    bind_to_the_node(replica, node)
    assert (replica.add_port_to_grpc_server is not before) == changed
