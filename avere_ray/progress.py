"""How far a stage is, for the person who waits: a live bar on a terminal, a plain line now and then elsewhere.

On a terminal `stage_progress` shows counts, rate and time left in one line that is redrawn. When stdout is a file, a
pipe or a Ray job log, it prints a line at most every 5 seconds and one at the end. All other lines for the person go
through `say`, so that they appear above a live bar and not in it.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from avere_ray.protocols import ProgressFn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PLAIN_EVERY_S = 5.0
"""Least time between two plain lines of one stage."""


def say(line: str) -> None:
    """Prints one line; on a terminal above the live bar, if there is one."""
    if sys.stdout.isatty():
        _console().print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, flush=True)


def reused(stage: str, used: int | None = None, unit: str = "clips") -> None:
    """Says that a stage is not run again, for instance "decode: finished earlier, reused (240 clips)"."""
    say(f"{stage}: finished earlier, reused" + ("" if used is None else f" ({used} {unit})"))


@contextlib.contextmanager
def stage_progress(
    title: str, unit: str = "", *, clock: Callable[[], float] = time.monotonic, live: bool = True
) -> Iterator[ProgressFn]:
    """Shows one stage's progress while the block runs; yields the function to tell it with.

    Args:
        title: the stage, for instance "decode".
        unit: what is counted, plural, for instance "clips".
        clock: seconds, rising; for tests.
        live: False for a stage beside another one; it only has lines, since a terminal has room for one bar.
    """
    display: _LiveBar | _PlainLines
    display = _LiveBar(title, unit) if live and sys.stdout.isatty() else _PlainLines(title, unit, clock)
    try:
        yield display
    except BaseException:
        display.end(complete=False)
        raise
    display.end(complete=True)


class _PlainLines:
    def __init__(self, title: str, unit: str, clock: Callable[[], float]) -> None:
        self.title, self.unit, self.clock = title, unit, clock
        self.done = 0
        self.total: int | None = None
        self.started = self.printed = clock()

    def __call__(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        now = self.clock()
        if now - self.printed >= PLAIN_EVERY_S:
            self.printed = now
            say(progress_line(self.title, self.unit, done, total, now - self.started))

    def end(self, *, complete: bool) -> None:
        say(end_line(self.title, self.unit, self.done, self.total, self.clock() - self.started, complete=complete))


class _LiveBar:
    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit, self.started = title, unit, time.monotonic()
        self.done = 0
        self.total: int | None = None
        self.bar = _bar()
        self.task = self.bar.add_task(title, total=None, counts=self._counts(0.0))
        self.bar.start()

    def __call__(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        elapsed = time.monotonic() - self.started
        self.bar.update(self.task, completed=done, total=total, counts=self._counts(elapsed))

    def end(self, *, complete: bool) -> None:
        self.bar.stop()
        elapsed = time.monotonic() - self.started
        say(end_line(self.title, self.unit, self.done, self.total, elapsed, complete=complete))

    def _counts(self, elapsed: float) -> str:
        return _figures(self.unit, self.done, self.total, elapsed)


def progress_line(title: str, unit: str, done: int, total: int | None, elapsed_s: float) -> str:
    """One line about a stage that runs, for instance "decode: 120/240 clips, 30.0/s, 4 s left"."""
    return f"{title}: {_figures(unit, done, total, elapsed_s)}"


def end_line(title: str, unit: str, done: int, total: int | None, elapsed_s: float, *, complete: bool) -> str:
    """The last line about a stage, for instance "decode: 240 clips in 8.0 s, 30.0/s"."""
    rate = f", {_rate(done, elapsed_s)}" if done and elapsed_s > 0 else ""
    if complete:
        return f"{title}: {_count(unit, done, None)} in {_seconds(elapsed_s)}{rate}"
    return f"{title}: stopped at {_count(unit, done, total)} after {_seconds(elapsed_s)}"


def _figures(unit: str, done: int, total: int | None, elapsed_s: float) -> str:
    parts = [_count(unit, done, total)]
    if done and elapsed_s > 0:
        parts.append(_rate(done, elapsed_s))
        if total is not None and total > done:
            parts.append(f"{_seconds((total - done) * elapsed_s / done)} left")
    return ", ".join(parts)


def _count(unit: str, done: int, total: int | None) -> str:
    return f"{done if total is None else f'{done}/{total}'} {unit}".rstrip()


def _rate(done: int, elapsed_s: float) -> str:
    rate = done / elapsed_s
    return f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.1f}/min"


def _seconds(value: float) -> str:
    if value < 10:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _bar() -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[counts]}", markup=False),
        console=_console(),
        transient=True,
    )


@functools.cache
def _console() -> "Console":
    from rich.console import Console

    return Console()
