"""Calls that may hang or crash: a child process makes them, and is killed and replaced when it does not answer.

The child is a fresh interpreter that stays for many calls, so that a call costs one message each way. It ends by
itself when its owner ends, when it has been idle for a while, or (by alarm) when a call outlives its owner.
"""

import contextlib
import importlib
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import IO, ParamSpec, TypeVar

from avere_ray.errors import AvereError, StageError

_P = ParamSpec("_P")
_R = TypeVar("_R")

TOKENS = ("AVERE_RAY_API_TOKEN", "AVERE_RAY_ADMIN_TOKEN", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that let their holder ask the server or run code on Ray; nothing for what reads strangers' files."""
_START_TIMEOUT_S = 60.0
_IDLE_S = 60.0
_ALARM_GRACE_S = 5.0
_END_S = 30.0
"""A killed child ends at once, unless a call of the system holds it that cannot be interrupted; then it is left."""
_CHILD_CODE = (
    "import sys; from avere_ray.isolation import serve; "
    "serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])"
)


class ChildTimedOut(AvereError):
    """A call took longer than allowed; its child was killed."""


class ChildCrashed(AvereError):
    """The child ended during a call, by a signal or an unexpected exception; the message says which."""


class ChildProcess:
    """Makes calls in a child process, one at a time; starts the child when first needed, and again after each loss.

    `preload` names modules that the child imports before its first call, so that no call pays for them. After `idle_s`
    seconds without a call the child ends; the next call starts another. Above `memory_mb` MiB of memory of its own the
    child gets no more (0: no limit): calls in it raise MemoryError, or it dies. `without` names variables of the
    environment that the child does not get.
    """

    def __init__(
        self, *, preload: Sequence[str] = (), idle_s: float = _IDLE_S, memory_mb: int = 0, without: Sequence[str] = ()
    ) -> None:
        self._arguments = (str(idle_s), str(memory_mb), *preload)
        self._without = frozenset(without)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._stderr: IO[bytes] | None = None
        self.abandoned = False
        """Whether it was given up for good."""

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._process.pid if self._process is not None else None

    def call(self, timeout_s: float, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What `function(*args, **kwargs)` returns; function, arguments and result are pickled.

        Raises:
            ChildTimedOut: there was no answer within `timeout_s` seconds.
            ChildCrashed: the child ended without an answer, or was abandoned.
            AvereError: the function raised it.
            StageError: no child can be started.
        """
        request = pickle.dumps((timeout_s, function, args, kwargs))
        for attempt in (0, 1):
            connection = self._connected()
            try:
                connection.send_bytes(request)
                if not connection.poll(timeout_s):
                    self.close()
                    raise ChildTimedOut(f"no answer within {timeout_s:g} s")
                succeeded, value = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError, pickle.UnpicklingError) as error:  # OSError: within a message
                ending, clean = self._post_mortem()
                if clean and attempt == 0:  # it was just leaving because it had been idle
                    continue
                raise ChildCrashed(ending) from error
            if not succeeded:
                raise value
            return value
        raise AssertionError("unreachable")

    def abandon(self) -> None:
        """Kills the child for good, from any thread: a call in work ends, and no other is made; then `close` it."""
        self.abandoned = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Kills the child; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a disk, and ends when that answers
                process.wait(timeout=_END_S)
        for handle in (self._connection, self._stderr):
            if handle is not None:
                handle.close()
        self._connection = self._stderr = None

    def _connected(self) -> Connection:
        if self.abandoned:
            raise ChildCrashed("the child process was abandoned")
        if self._connection is None:
            self._start()
        assert self._connection is not None
        return self._connection

    def _start(self) -> None:
        try:
            self._connection = self._launched()
        except OSError as error:
            self.close()
            raise StageError(
                f"cannot start a child process: {error}. Check that memory, file descriptors and room for temporary "
                "files are free."
            ) from error
        if self.abandoned:  # meanwhile, by another thread, which found no process
            self.abandon()
        with contextlib.suppress(EOFError, OSError):
            if self._connection.poll(_START_TIMEOUT_S):
                self._connection.recv_bytes()
                return
        ending, _ = self._post_mortem()
        raise StageError(
            f"cannot start a child process within {_START_TIMEOUT_S:g} s: {ending}. Check that "
            f"{sys.executable} runs and that memory is free."
        )

    def _launched(self) -> Connection:
        """Starts the interpreter; its end of the connection is in its hands alone."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - read after the child's death
            environment = {name: value for name, value in os.environ.items() if name not in self._without}
            environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD_CODE, str(theirs.fileno()), *self._arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
            )
            return Connection(ours.detach())

    def _post_mortem(self) -> tuple[str, bool]:
        """How the child ended, in words, and whether it left of its own will; clears it away."""
        process, stderr = self._process, self._stderr
        assert process is not None and stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        code = process.returncode
        stderr.seek(0)
        lines = stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        self.close()
        if code is None:
            return "the child process gave no answer that can be read, and was killed", False
        if code < 0:
            return f"the child process was ended by {signal.Signals(-code).name}", False
        return f"the child process ended with exit code {code}{': ' + lines[-1] if lines else ''}", code == 0


def serve(descriptor: int, idle_s: float, memory_mb: int, preload: Sequence[str]) -> None:
    """The child's loop: answers calls until its owner closes the connection or is silent for long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner to answer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection = Connection(descriptor)
    for module in preload:
        importlib.import_module(module)
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb * 1024 * 1024, memory_mb * 1024 * 1024))
    connection.send_bytes(b"ready")
    while connection.poll(idle_s):
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(request))


def _answer(request: bytes) -> bytes:
    """The pickled result; an AvereError travels back, any other exception ends the child with its traceback."""
    timeout_s, function, args, kwargs = pickle.loads(request)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _ALARM_GRACE_S)
    try:
        reply = (True, function(*args, **kwargs))
    except AvereError as error:
        reply = (False, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL)
