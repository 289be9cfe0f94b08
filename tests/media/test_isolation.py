"""A child that hangs, crashes or is killed costs its call and nothing else."""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from avere_ray import isolation
from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError, StageError
from avere_ray.isolation import TOKENS, ChildCrashed, ChildProcess, ChildTimedOut
from avere_ray.media import decode_clip
from avere_ray.records import Clip


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    process = ChildProcess()
    yield process
    process.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_calls_share_one_child(child: ChildProcess) -> None:
    first = child.call(10.0, os.getpid)
    assert first == child.call(10.0, os.getpid) == child.pid
    assert first != os.getpid()


def test_a_child_gets_no_variable_that_it_is_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TOKENS, "OTHER"):
        monkeypatch.setenv(name, "x")
    process = ChildProcess(without=TOKENS)
    found = [process.call(10.0, os.getenv, name) for name in (*TOKENS, "OTHER")]
    process.close()
    assert found == [None] * len(TOKENS) + ["x"]


def test_large_arguments_and_results_travel(child: ChildProcess) -> None:
    data = os.urandom(5_000_000)
    assert child.call(20.0, bytes.fromhex, data.hex()) == data


def test_a_hanging_call_is_killed_and_the_next_one_works(child: ChildProcess) -> None:
    before = child.call(10.0, os.getpid)
    with pytest.raises(ChildTimedOut, match=r"0\.2 s"):
        child.call(0.2, time.sleep, 600)
    assert not alive(before)
    assert child.call(10.0, os.getpid) != before


def test_a_child_that_cannot_be_ended_costs_its_call_and_no_more(
    child: ChildProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = child.call(10.0, os.getpid)

    def never(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        raise subprocess.TimeoutExpired("child", timeout or 0.0)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", never)
        with pytest.raises(ChildTimedOut):
            child.call(0.2, time.sleep, 600)
    assert child.call(10.0, os.getpid) != before


@pytest.mark.parametrize(
    ("function", "argument", "word"),
    [(os._exit, 7, "exit code 7"), (signal.raise_signal, signal.SIGSEGV, "SIGSEGV"), (int, "x", "invalid literal")],
    ids=["exit", "segfault", "unexpected exception"],
)
def test_a_crash_is_told_apart_and_the_next_call_works(
    child: ChildProcess, function: object, argument: object, word: str
) -> None:
    with pytest.raises(ChildCrashed, match=word):
        child.call(10.0, function, argument)  # type: ignore[arg-type]
    assert child.call(10.0, len, "abc") == 3


class DiesWhileSent:
    """A result whose message is cut short: its child is killed when half of it has been sent."""

    def __reduce__(self) -> tuple[object, ...]:
        connections: Any = Connection
        send = connections._send

        def half(connection: Any, data: memoryview, *more: object) -> None:
            send(connection, data[: len(data) // 2], *more)
            signal.raise_signal(signal.SIGKILL)

        connections._send = half  # in the child alone, which pickles the result
        return bytes, (b"x" * 100_000,)


def test_a_child_that_dies_within_its_answer_costs_that_call_alone(child: ChildProcess, tmp_path: Path) -> None:
    with pytest.raises(ChildCrashed, match="SIGKILL") as caught:
        child.call(30.0, DiesWhileSent)
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value.__cause__, (EOFError, ConnectionError))
    assert child.call(10.0, len, "abc") == 3


def test_an_answer_that_cannot_be_read_costs_that_call_alone(
    child: ChildProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = child.call(10.0, os.getpid)
    wait = subprocess.Popen.wait
    monkeypatch.setattr(Connection, "recv_bytes", lambda self: b"\x80\x05no pickle")
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self, timeout: wait(self, 0.1 if timeout == 5 else timeout))
    with pytest.raises(ChildCrashed, match="no answer that can be read"):
        child.call(10.0, os.getpid)
    monkeypatch.undo()
    assert not alive(before)
    assert child.call(10.0, os.getpid) != before


def test_a_child_that_left_while_idle_is_replaced_unnoticed() -> None:
    child = ChildProcess(idle_s=0.05)
    first = child.call(10.0, os.getpid)
    while Path(f"/proc/{first}/stat").read_text().split()[2] != "Z":  # the test's time limit bounds this
        time.sleep(0.02)
    assert child.call(10.0, os.getpid) != first
    child.close()


def test_our_errors_come_back_unchanged(child: ChildProcess, tmp_path: Path) -> None:
    with pytest.raises(ClipDecodeError) as caught:
        child.call(30.0, decode_clip, Clip(clip_id="c", uri="no.mp4"), tmp_path / "no.mp4", DecodeConfig())
    assert caught.value.reason == "file_missing"


def test_a_child_that_is_abandoned_ends_its_call_and_makes_no_other(child: ChildProcess, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def abandoned() -> None:
        while not begun.exists():  # the test's time limit bounds this
            time.sleep(0.01)
        child.abandon()

    thread = threading.Thread(target=abandoned)
    thread.start()
    with pytest.raises(ChildCrashed, match="SIGKILL"):
        child.call(50.0, subprocess.run, ["sh", "-c", f"touch '{begun}'; exec sleep 50"])
    thread.join(timeout=10)
    with pytest.raises(ChildCrashed, match="abandoned"):
        child.call(10.0, os.getpid)
    assert child.pid is None


def test_a_child_that_is_abandoned_while_it_starts(child: ChildProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: object, **settings: object) -> object:
        child.abandon()  # by another thread, which finds no process yet
        return start(*arguments, **settings)  # type: ignore[call-overload]

    start = subprocess.Popen
    monkeypatch.setattr(isolation.subprocess, "Popen", slow)
    with pytest.raises(StageError, match="SIGKILL"):
        child.call(50.0, time.sleep, 50)
    assert child.pid is None


@pytest.mark.parametrize("name", ["socket.socketpair", "tempfile.TemporaryFile", "subprocess.Popen"])
def test_a_machine_without_room_for_a_child_is_named(child: ChildProcess, name: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, full)
        with pytest.raises(StageError, match=r"cannot start a child process: .*Too many open files.*descriptors"):
            child.call(10.0, os.getpid)
    assert len(os.listdir("/proc/self/fd")) == before
    assert child.call(10.0, os.getpid) == child.pid


def test_close_ends_the_child(child: ChildProcess) -> None:
    pid = child.call(10.0, os.getpid)
    child.close()
    assert not alive(pid)


def test_a_call_that_wants_too_much_memory_is_refused_it() -> None:
    child = ChildProcess(memory_mb=512)
    assert child.call(10.0, len, b"x" * 1000) == 1000
    with pytest.raises(ChildCrashed, match="MemoryError"):
        child.call(10.0, bytes, 1 << 30)
    assert child.call(10.0, len, "abc") == 3
    child.close()
