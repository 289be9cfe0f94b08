"""Builds and loads DeepSpeed's one CPU operator without waiting for ever for a builder that was killed.

torch builds an operator under a lock file and waits for that file without a limit; a process killed meanwhile leaves it
behind, and every later run hangs. Here one process at a time builds, held by a lock that ends with its holder, and a
lock file that nobody holds any more is removed first. DeepSpeed then finds the operator loaded and locks nothing.
It is always this environment's ninja that looks whether anything is to be built: ninja's log does not hold between
versions, so that two of them on one machine's PATH would build the operator anew in turns, a minute each time.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avere_ray.environment import tools_first
from avere_ray.errors import TrainingError

STALE_S = 120.0
"""A lock file older than this that no process of this machine has open was left behind."""
_WAIT_S = 900.0
_LOOK_EVERY_S = 0.2


def load_cpu_operator() -> None:
    """Loads DeepSpeed's shared-memory operator, building it the first time; nothing where DeepSpeed needs none.

    Raises:
        TrainingError: another process has been building for fifteen minutes.
    """
    from deepspeed.accelerator import get_accelerator

    _build_inside_venv()
    os.environ.update(tools_first(os.environ))
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not builder.is_compatible(verbose=False):
        return
    from torch.utils.cpp_extension import _get_build_directory

    folder = Path(_get_build_directory(builder.name, verbose=False))
    with one_at_a_time(folder.parent / f"{builder.name}.avere_ray.lock"):
        remove_stale(folder / "lock")
        builder.load(verbose=False)


def _build_inside_venv() -> None:
    """Sets where torch builds, unless that is set: within the virtual environment.

    torch's own folder is shared by all environments of a user. Two of them then build over each other for ever, since
    the paths they compile with differ.
    """
    prefix = Path(sys.prefix).resolve()
    if sys.prefix != sys.base_prefix and os.access(prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(prefix / "torch_extensions"))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a file lock that the system releases when its holder ends, however it ends.

    Raises:
        TrainingError: it is still held after fifteen minutes.
    """
    limit = time.monotonic() + _WAIT_S
    with path.open("wb") as file:
        while not _locked(file.fileno()):
            if time.monotonic() > limit:
                raise TrainingError(
                    f"another process has held {path} for {_WAIT_S:.0f} s while building DeepSpeed's operator. End it, "
                    "or set TORCH_EXTENSIONS_DIR to a folder of its own."
                )
            time.sleep(_LOOK_EVERY_S)
        yield


def remove_stale(path: Path, older_than_s: float = STALE_S) -> bool:
    """Removes a lock file that was left behind; returns whether it did."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if age < older_than_s or _is_open(path):
        return False
    path.unlink(missing_ok=True)
    return True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: there is no way to tell
    return True


def _is_open(path: Path) -> bool:
    """Whether a process of this machine has the file open, as far as this user may see."""
    target = str(path.resolve())
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == target:
                return True
        except OSError:
            continue
    return False
