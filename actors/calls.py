"""Batches of queries on their way through a pool, without Ray: cut between clips, lined up for engines, counted.

A clip's queries stand in one batch, and every batch has a home among the engines that follows from its first clip
alone. So the questions about a clip, also those of a later round, meet the engine whose caches know it. An engine
without waiting batches of its own takes one from the end of the line, whosever it is.
"""

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from avere_ray.records import Query

_LOOK_EVERY_S = 1.0


@dataclass(eq=False)
class Call:
    """One batch of queries."""

    queries: Sequence[Query]
    at: tuple[int, ...]
    """Where each stands among all queries."""
    key: int
    """Follows from the first clip alone; the batch's home is engine `key` modulo their number."""
    attempts: int = 0
    """How often it was issued."""


def cut(queries: Iterable[Query], size: int) -> Iterator[Call]:
    """Batches of up to `size` queries; a clip's are together, and are divided only where they are more than `size`.

    Where all queries are there, those about a clip are brought together first; else they come as they stand.
    """
    batch: list[tuple[int, Query]] = []
    for about_a_clip in _by_clip(queries):
        if batch and len(batch) + len(about_a_clip) > size:
            yield _call(batch)
            batch = []
        batch += about_a_clip
        while len(batch) >= size:
            yield _call(batch[:size])
            batch = batch[size:]
    if batch:
        yield _call(batch)


def wanted_engines(running: int, waiting: int, most: int) -> int:
    """How many engines there should be: one more than run where each has another batch waiting, up to `most`."""
    return min(running + 1, most) if waiting >= running else running


class Line:
    """Batches that wait for an engine, from queries that are all there or from a source that is still being filled.

    Such a source is read in a thread of its own, `ahead` batches at most, so that whoever hands out the batches never
    waits for it and goes on looking after the engines. Leave the `with` block to end the thread.
    """

    def __init__(self, queries: Iterable[Query], *, size: int, engines: int, ahead: int) -> None:
        self._engines, self._ahead = engines, ahead
        self._waiting: deque[Call] = deque()
        self._again: deque[Call] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        calls = cut(queries, size)
        self.open = not isinstance(queries, Sized)
        """Whether batches may still come."""
        if self.open:
            threading.Thread(target=self._feed, args=(calls,), name="queries", daemon=True).start()
        else:
            self._waiting.extend(calls)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.open = False
            self._changed.notify_all()

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._waiting) + len(self._again)

    def take(self, engine: int) -> Call | None:
        """The next batch for an engine: one given back, else its own oldest, else the newest; None when none waits.

        Raises:
            what the source of the queries raised.
        """
        with self._changed:
            self.check()
            if self._again:
                return self._again.popleft()
            if not self._waiting:
                return None
            home = engine % self._engines
            own = next((c for c in self._waiting if c.key % self._engines == home), None)
            call = own if own is not None else self._waiting[-1]
            self._waiting.remove(call)
            self._changed.notify_all()
            return call

    def check(self) -> None:
        """Nothing, unless the source of the queries has failed; then raises what it raised."""
        if self._error is not None:
            raise self._error

    def give_back(self, call: Call) -> None:
        """A batch that an engine did not finish; it is the next to be taken."""
        self._again.append(call)

    def wait(self, timeout_s: float) -> None:
        """Waits for a batch to come, or for the end of the source."""
        with self._changed:
            if self.open and not self._waiting and self._error is None:
                self._changed.wait(timeout_s)

    def _feed(self, calls: Iterator[Call]) -> None:
        try:
            for call in calls:
                with self._changed:
                    while self.open and len(self._waiting) >= self._ahead:
                        self._changed.wait(_LOOK_EVERY_S)
                    if not self.open:
                        return
                    self._waiting.append(call)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be acted on
            self._error = error
        with self._changed:
            self.open = False
            self._changed.notify_all()


@dataclass
class Served:
    """What one engine has done."""

    requests: int = 0
    """Queries answered."""
    tokens: int = 0
    """Response tokens sampled."""
    busy_s: float = 0.0
    """Seconds in which it had work."""
    busy_since: float | None = None
    in_flight: int = 0
    """Queries it works on."""
    most_in_flight: int = 0
    """Most queries it had at a time."""


class Meter:
    """Throughput of each engine and of the pool, and how long the line was; times are monotonic seconds."""

    def __init__(self) -> None:
        self.engines: dict[int, Served] = {}
        self._most_waiting = 0
        self._all = Served()

    def sent(self, engine: int, requests: int, waiting: int, now: float) -> None:
        """A batch went to an engine, while `waiting` batches were left in the line."""
        for served in (self._of(engine), self._all):
            if not served.in_flight:
                served.busy_since = now
            served.in_flight += requests
            served.most_in_flight = max(served.most_in_flight, served.in_flight)
        self._most_waiting = max(self._most_waiting, waiting)

    def ended(self, engine: int, requests: int, answer: Sequence[Any] | None, now: float) -> None:
        """A batch came back, or (None) was lost with its engine."""
        for served in (self._of(engine), self._all):
            served.in_flight -= requests
            served.requests += len(answer or ())
            served.tokens += sum(_tokens(found) for found in answer or ())
            if not served.in_flight and served.busy_since is not None:
                served.busy_s += now - served.busy_since
                served.busy_since = None

    def figures(self) -> dict[str, float]:
        """By name: of the pool, and of each engine after its number."""
        found = {f"engine_{n}_{k}": v for n, s in sorted(self.engines.items()) for k, v in _rates(s).items()}
        return _rates(self._all) | {"batches_waiting_max": float(self._most_waiting)} | found

    def _of(self, engine: int) -> Served:
        return self.engines.setdefault(engine, Served())


def _rates(served: Served) -> dict[str, float]:
    speed = served.tokens / served.busy_s if served.busy_s else 0.0
    return {"requests": float(served.requests), "tokens": float(served.tokens), "busy_seconds": round(served.busy_s, 3),
            "tokens_per_s": round(speed, 1), "in_flight_max": float(served.most_in_flight)}  # fmt: skip


def _tokens(found: Any) -> int:
    """Tokens of what one query was answered with; none where it was scored and nothing sampled."""
    return sum(len(getattr(one, "token_ids", ())) for one in found)


def _by_clip(queries: Iterable[Query]) -> Iterator[list[tuple[int, Query]]]:
    """Queries with their places, in groups about one clip each."""
    if isinstance(queries, Sized):
        groups: dict[str, list[tuple[int, Query]]] = {}
        for place, query in enumerate(queries):
            groups.setdefault(query.clip_id, []).append((place, query))
        yield from groups.values()
        return
    for _, group in itertools.groupby(enumerate(queries), key=lambda placed: placed[1].clip_id):
        yield list(group)


def _call(batch: Sequence[tuple[int, Query]]) -> Call:
    key = int.from_bytes(hashlib.sha256(batch[0][1].clip_id.encode()).digest()[:4], "big")
    return Call([query for _, query in batch], tuple(place for place, _ in batch), key)
