"""The Ray session of a job: joins the cluster the config or RAY_ADDRESS names, or starts a local one on 127.0.0.1.

Ray itself waits for minutes, deaf to Ctrl-C, for an address that does not answer. So the address is asked first, with a
bounded time, whether a Ray head is there. Ray gives each task and actor as many OpenMP threads as it has CPUs.

A local Ray asks for a token that is drawn for it, unless RAY_AUTH_MODE says otherwise: other users of the machine reach
127.0.0.1 too, and whoever reaches Ray's ports without a token runs code here.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avere_ray.config import RayConfig
from avere_ray.errors import ClusterError
from avere_ray.progress import say

LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, Ray uses 127.0.0.1 as its node address, and nothing listens beyond loopback. Its `_node_ip_address` is not
enough for that: 127.0.0.1 given there is replaced by the machine's network address."""

WORKER_LOGS_VARIABLE = "AVERE_RAY_WORKER_LOGS"
_SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOO_SLOW = "timed out during startup"
"""Of Ray's words about a start that took too long."""
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_free_objects_period_milliseconds": "20",
}
"""What Ray is told besides its arguments. OVERRIDE_ON_ZERO: an actor or task that reserves no GPU still sees all of its
node's (decoding uses them that way), so what works on a GPU is decided by the config, never by what torch can see.
AUTO_CONNECT: a thread that still asks an actor when the session has ended gets an error, instead of a new Ray.
free_objects: what a stream has read leaves the object store within 20 ms; by default it stays for a second, so that a
fast reader fills it with what nobody wants any more."""
_NO_WATCHER = ("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
"""Nobody takes this machine away with a notice, so Ray Train need not start a process that waits for one."""


@contextlib.contextmanager
def ray_session(cfg: RayConfig) -> Iterator[None]:
    """Ray for the length of a `with` block; inside another session it is that one, which stays open.

    Raises:
        ClusterError: the cluster does not answer within `cfg.connect_timeout_s`, refuses this client, or a local one
            cannot be started; the message names the address and what to do.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")
    address = _address(cfg)
    if address == "local" or _host(address) in _LOCAL_HOSTS:
        os.environ.setdefault(LOOPBACK_VARIABLE, "0")  # read when Ray is imported
    if address == "local" and not _open_already():
        _ask_for_a_token()

    import ray

    if ray.is_initialized():
        yield
        return
    try:
        with _sigterm_handler_kept():
            _start_local(cfg) if address == "local" else _join(address, cfg.connect_timeout_s)
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Puts back what SIGTERM does in this process, which Ray changes when it is started.

    Ray's own handler in C++ sets an alarm that aborts the process three seconds later, in the middle of whatever it
    closes.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _open_already() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _ask_for_a_token() -> None:
    """Lets a local Ray answer its own processes alone; read when Ray is imported, and by everything it starts."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and not any(os.environ.get(name) for name in _TOKEN_VARIABLES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def is_local(cfg: RayConfig) -> bool:
    """Whether `ray_session` starts a Ray of its own, which does not grow."""
    return _address(cfg) == "local"


def _address(cfg: RayConfig) -> str:
    """The address to join, or "local"; "auto" is RAY_ADDRESS, else what `ray start` left on this machine.

    Raises:
        ClusterError: the address is "auto" and there is neither.
    """
    chosen = cfg.address or os.environ.get("RAY_ADDRESS") or "local"
    if chosen != "auto":
        return chosen
    left = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    found = os.environ.get("RAY_ADDRESS", "auto")
    if found == "auto" and left.is_file():
        found = left.read_text(encoding="utf-8").strip()
    if found in ("", "auto"):
        raise ClusterError(
            "ray.address is 'auto', but no Ray runs on this machine. Start one with `ray start --head`, name its "
            "address, or leave ray.address out to start a local one."
        )
    return found


def _worker_logs() -> bool:
    """Whether what workers print is shown too: AVERE_RAY_WORKER_LOGS=1. It is in Ray's session folder in any case."""
    return os.environ.get(WORKER_LOGS_VARIABLE) == "1"


def _start_local(cfg: RayConfig) -> None:
    """Starts Ray on this machine; once more where it missed the thirty seconds that Ray gives itself, as it does on a
    busy machine, whose second start finds every file in memory."""
    try:
        _init_local(cfg)
    except ClusterError as error:
        if _TOO_SLOW not in str(error):
            raise
        say("ray: did not start within its 30 s; starting it once more")
        _init_local(cfg)


def _init_local(cfg: RayConfig) -> None:
    import ray

    os.environ.setdefault(*_NO_WATCHER)
    try:
        ray.init(
            address="local",
            num_cpus=cfg.num_cpus,
            object_store_memory=cfg.object_store_mb * 2**20,
            include_dashboard=False,
            log_to_driver=_worker_logs(),
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:  # a start that takes too long is a plain Exception in Ray
        ray.shutdown()
        raise ClusterError(
            f"cannot start a local Ray with ray.num_cpus={cfg.num_cpus} and ray.object_store_mb="
            f"{cfg.object_store_mb}: {_first_line(error)}. Free memory, shared memory and processors, or "
            "lower these settings."
        ) from error


def _join(address: str, timeout_s: float) -> None:
    import ray

    _ask_for_head(address, timeout_s)
    try:
        ray.init(
            address=address, logging_level=logging.WARNING, log_to_driver=_worker_logs(), runtime_env=_runtime_env()
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the Ray cluster at {address} refused this client: {_refusal(error)}. Check that both "
            f"run Ray {ray.__version__} and the same Python, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN "
            "are those of the cluster."
        ) from error


def _runtime_env() -> dict[str, Any] | None:
    """What workers elsewhere need to import this project; a submitted job brings its working_dir already."""
    if _SUBMITTED_JOB_VARIABLE in os.environ:
        return None
    root = Path(__file__).resolve().parents[1]
    return {"py_modules": [str(root / package) for package in ("avere_ray", "actors", "jobs")]}


def _ask_for_head(address: str, timeout_s: float) -> None:
    """Asks the standard gRPC health question, which a Ray head answers without a token.

    Raises:
        ClusterError: nobody answers in time, or what answers is no Ray head.
    """
    target = _grpc_target(address)
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
            pass
    except (OSError, OverflowError) as error:
        raise _silent(address, timeout_s, _first_line(error)) from error
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # the question would need the cluster's certificates
    answer = _health(target, timeout_s)
    if answer is not None:
        raise _silent(address, timeout_s, answer)


def _health(target: str, timeout_s: float) -> str | None:
    """None when a gRPC server answers at `target`, else what happened."""
    import grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return "something listens there, but it is no Ray head"
    return None


def _grpc_target(address: str) -> str:
    """host:port of a Ray address.

    Raises:
        ClusterError: the address has no such form.
    """
    target = address.removeprefix("ray://")
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or "/" in target:
        raise ClusterError(
            f"Ray address {address!r} (ray.address or RAY_ADDRESS) is not understood. Allowed: "
            "'HOST:PORT' (6379 as a rule), 'ray://HOST:10001', 'auto', 'local'. The address of a "
            "dashboard (http://...) is for `ray job submit --address`."
        )
    return target


def _host(address: str) -> str:
    return address.removeprefix("ray://").rpartition(":")[0].strip("[]")


def _silent(address: str, timeout_s: float, what: str) -> ClusterError:
    return ClusterError(
        f"no Ray cluster answers at {address} (ray.address or RAY_ADDRESS, time limit {timeout_s:g} s): {what}. "
        "Check the address and that the head runs (`ray status`), raise ray.connect_timeout_s if it is still starting, "
        "or unset both to start a local one."
    )


def _refusal(error: BaseException) -> str:
    """Ray's words in one line; where its first line ends in a colon, as about versions, what it announces too."""
    first = _first_line(error)
    return " ".join(str(error).split()) if first.endswith(":") else first


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
