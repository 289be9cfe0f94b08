"""A Ray cluster of several nodes on 127.0.0.1 with token authentication, whose nodes can be taken away.

`ray start` lets a second node listen on loopback only on other systems than Linux, so the nodes are those of
`ray.cluster_utils.Cluster`, in a process of their own: this file as a script, which takes a command a line and answers
with a line of JSON. Taking a node away kills everything on it at once, as when a machine is lost. Each node has a
folder of its own for what it unpacks, since one that ends takes that folder with it.
"""

import contextlib
import json
import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
ROLE_LABEL = "avere-ray/role"
_ANSWER_S = 400.0
_STARTS = 4


class Nodes:
    """The cluster, seen from a test. Each node has a role, by which it is named; the first one is the head."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        """`env`: environment without any Ray cluster; `folder`: for the log of the nodes."""
        self.env = {
            **env,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        }
        self.log = folder / "nodes.log"
        self.address = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="ar")  # short: the paths of sockets have a limit
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self._folder],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._lines: queue.Queue[str] = queue.Queue(maxsize=1000)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.ask("end")
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, **cpus: int) -> None:
        """Starts a head and further nodes, by role with their CPUs; `address` is then the head's job server."""
        for role, count in cpus.items():
            self.add(role, count)

    def add(self, role: str, cpus: int) -> None:
        """Adds a node, the first one as head."""
        found = self.ask("add", role, cpus)
        self.address = found["address"]
        self.env["RAY_API_SERVER_ADDRESS"] = self.address

    def lose(self, role: str) -> None:
        """Kills everything that runs on a node; with the head goes the whole cluster."""
        self.ask("lose", role)

    def actors(self) -> list[dict[str, str]]:
        """Class and role of the node of every actor there was."""
        return self.ask("actors")["actors"]

    def tasks(self) -> list[dict[str, str]]:
        """Name and role of the node of every task that ran."""
        return self.ask("tasks")["tasks"]

    def ask(self, *command: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        limit = time.monotonic() + _ANSWER_S
        while time.monotonic() < limit:
            try:
                line = self._lines.get(timeout=1)
            except queue.Empty:
                assert self._process.poll() is None, self.log.read_text()[-3000:]
                continue
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError(f"no answer to {command}: {self.log.read_text()[-3000:]}")


class _Served:
    """The cluster itself, in the process of this script."""

    def __init__(self, folder: str) -> None:
        self.cluster: Any = None
        self.nodes: dict[str, Any] = {}
        self.roles: dict[str, str] = {}
        self.address = ""
        self.folder = folder

    def add(self, role: str, cpus: int) -> dict[str, Any]:
        shape = {"num_cpus": cpus, "object_store_memory": 128 * 2**20, "labels": {ROLE_LABEL: role}}
        node = self._started(shape)
        _wait(lambda: node.plasma_store_socket_name in self._alive(), f"the node {role} did not come up")
        self.nodes[role] = node
        self.roles[self._alive()[node.plasma_store_socket_name]] = role
        if len(self.nodes) == 1:
            # where a job's driver looks for its cluster; else it takes any that runs on this machine
            Path(shape["temp_dir"], "ray_current_cluster").write_text(self.cluster.address)
            _wait(lambda: _answers(self.address), "no dashboard")
        return {"address": self.address}

    def _started(self, shape: dict[str, Any]) -> Any:
        """A new node; on a busy machine Ray gives one up that took half a minute, so it is tried again."""
        from ray.cluster_utils import Cluster

        # Ray notes the head's address there, and has no folder for it on a machine where it never ran
        Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray").mkdir(exist_ok=True)
        problem = "?"
        for _ in range(_STARTS):
            shape |= {"node_ip_address": "127.0.0.1", "temp_dir": tempfile.mkdtemp(prefix="n", dir=self.folder)}
            shape["dashboard_agent_listen_port"] = _free_port()
            if not self.nodes:
                port = _free_port()
                self.cluster, self.address = Cluster(), f"http://127.0.0.1:{port}"
                shape |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
                shape |= {"gcs_server_port": _free_port()}
            try:
                return self.cluster.add_node(wait=False, **shape)
            except Exception as error:  # noqa: BLE001 - Ray raises no narrower one
                problem = f"{type(error).__name__}: {error}"
        raise RuntimeError(f"no node came up in {_STARTS} attempts: {problem}")

    def lose(self, role: str) -> dict[str, Any]:
        head = self.nodes[role] is self.cluster.head_node
        for name in [*(r for r in self.nodes if r != role), role] if head else [role]:
            node = self.nodes.pop(name)
            below = _below(node)
            self.cluster.remove_node(node, allow_graceful=False)
            for process in below:
                with contextlib.suppress(Exception):
                    process.kill()
        return {}

    def actors(self) -> dict[str, Any]:
        from ray.util.state import list_actors

        found = list_actors(address=self.address, detail=True, limit=1000, timeout=60)
        return {"actors": [{"class": a.class_name, "role": self.roles.get(a.node_id or "", "")} for a in found]}

    def tasks(self) -> dict[str, Any]:
        from ray.util.state import list_tasks

        found = list_tasks(address=self.address, detail=True, limit=5000, timeout=60)
        return {
            "tasks": [
                {"name": t.name, "type": t.type, "role": self.roles.get(t.node_id or "", "")}
                for t in found
                if t.node_id
            ]
        }

    def gcs(self) -> dict[str, Any]:
        """Where drivers join."""
        return {"address": self.cluster.address}

    def end(self) -> dict[str, Any]:
        for role in [*reversed(self.nodes)]:
            if role in self.nodes:
                self.lose(role)
        return {}

    def _alive(self) -> dict[str, str]:
        """Ids of the living nodes, by the socket of their object store."""
        table = self.cluster.global_state.node_table()
        return {node["ObjectStoreSocketName"]: node["NodeID"] for node in table if node["Alive"]}


def _below(node: Any) -> list[Any]:
    """Every process that a node's processes started."""
    import psutil

    found = []
    for infos in node.all_processes.values():
        for info in infos:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += psutil.Process(info.process.pid).children(recursive=True)
    return found


def _wait(ready: Any, what: str, limit_s: float = 240) -> None:
    limit = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > limit:
            raise RuntimeError(what)
        time.sleep(0.2)


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _serve() -> None:
    """Commands in, answers out; an error ends the process with its traceback in the log, which the test shows."""
    served = _Served(sys.argv[1])
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print("ANSWER " + json.dumps(getattr(served, command)(*arguments)), flush=True)
        if command == "end":
            return


if __name__ == "__main__":
    _serve()
