"""What a node does while a run goes on: CPU, memory, disk and GPUs, sampled by one watcher per node into a spool.

Read from /proc and nvidia-smi, since a node of a cluster need not have more. Names: `system/<node>/cpu_percent`, ...
The step is the number of the sample, which goes on over restarts.
"""

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from avere_ray.errors import StorageError
from avere_ray.metrics import MetricSpool, read_events

_GPU_FIELDS = ("utilization.gpu", "memory.used", "power.draw")
_GPU_NAMES = ("percent", "memory_mb", "power_w")
_NVIDIA_TIMEOUT_S = 10


class NodeWatch:
    """Samples this node in a thread until it is closed. A full disk or a broken tool ends no run."""

    def __init__(self, folder: Path, every_s: float, *, node: str | None = None) -> None:
        """
        Args:
            folder: the run's spool folder.
            every_s: seconds between samples.
            node: name of this node; its host name by default.
        """
        self.node = re.sub(r"[^A-Za-z0-9_-]", "-", node or socket.gethostname()).strip("-_") or "node"
        self._spool = MetricSpool(folder, f"system-{self.node}")
        self._every_s, self._folder = every_s, folder
        self._step = _next_step(self._spool.path)
        self._cpu = _cpu_times()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="node-watch", daemon=True)
        self._thread.start()

    def sample(self) -> dict[str, float]:
        """Figures of now; CPU since the sample before."""
        before, self._cpu = self._cpu, _cpu_times()
        found = {"cpu_percent": _busy_percent(before, self._cpu), **_memory(), **_gpus()}
        found["disk_free_gb"] = shutil.disk_usage(self._folder).free / 1e9
        return {f"system/{self.node}/{name}": value for name, value in found.items()}

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join(_NVIDIA_TIMEOUT_S + 1.0)

    def _watch(self) -> None:
        while not self._closing.wait(self._every_s):
            try:
                self._spool.log(self.sample(), step=self._step)
            except (OSError, StorageError, ValueError):
                continue
            self._step += 1


def _next_step(path: Path) -> int:
    step, offset = 0, 0
    while events := read_events(path, offset):
        step = max([step, *(event.step + 1 for event in events if event.kind == "metrics")])
        offset = events[-1].end
    return step


def _cpu_times() -> tuple[float, float]:
    """Busy and all CPU time since the start of the machine, in ticks; zeros where /proc is missing."""
    try:
        fields = [float(x) for x in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0
    idle = sum(fields[3:5])  # idle, waiting for the disk
    return sum(fields) - idle, sum(fields)


def _busy_percent(before: tuple[float, float], now: tuple[float, float]) -> float:
    return 100 * (now[0] - before[0]) / max(now[1] - before[1], 1e-9)


def _memory() -> dict[str, float]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    kib = {line.split(":")[0]: float(line.split()[1]) for line in lines if len(line.split()) > 1}
    used = kib["MemTotal"] - kib["MemAvailable"]
    return {"memory_mb": used / 1024, "memory_percent": 100 * used / kib["MemTotal"]}


def _gpus() -> dict[str, float]:
    """Figures of each NVIDIA GPU; none where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> dict[str, float]:
    """Figures of each line of nvidia-smi's CSV; what a GPU does not report ("[N/A]") is left out."""
    found = {}
    for number, line in enumerate(text.strip().splitlines()):
        for name, value in zip(_GPU_NAMES, line.split(","), strict=False):
            try:
                found[f"gpu{number}_{name}"] = float(value)
            except ValueError:
                continue
    return found
