"""Asks a remote model: waits for its turn, sends, and tells what is worth another try from what is not."""

import http.client
import ipaddress
import math
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import avere_ray
from avere_ray.config import EndpointConfig
from avere_ray.endpoint.budget import Gate, Need, least_need, place
from avere_ray.endpoint.usage import Usage, UsageLog
from avere_ray.endpoint.wire import Busy, Reply, Request, explained, read_all, read_reply, retry_after, to_body
from avere_ray.errors import ConfigError, EndpointError, RequestRefused, RequestsLeft
from avere_ray.progress import say

_FIRST_PAUSE_S = 0.5
_REQUEST_FAULTS = (400, 413, 415, 422)
_AGAIN = (408, 409, 425, 429)


class Done(Protocol):
    """Told what became of each request, in the order they end, from one thread."""

    def __call__(self, index: int, outcome: Reply | RequestRefused) -> None: ...


class Endpoint:
    """A remote model; may be used from several threads."""

    def __init__(
        self,
        cfg: EndpointConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
        seed: int | None = None,
        used: Path | None = None,
    ) -> None:
        """
        Args:
            cfg: where it is and what it may cost.
            clock: seconds, for the rates.
            pause: waits for so many seconds; the default ends early when another request ends everything.
            seed: of the jitter.
            used: file in which usage is kept, so that the budget holds for all processes and runs that name it, and
                the rates for one that takes the place of another.

        Raises:
            ConfigError: no address is set, or the key's variable is empty and the server is not on this machine.
        """
        self.cfg = cfg
        self._key = _key(cfg)
        self._halt = threading.Event()
        self._pause = pause or self._halt.wait
        self._clock = clock
        self._jitter = random.Random(seed)
        self._gate = Gate(cfg, UsageLog(used), clock())
        self._told = False
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._opener = _opener(cfg.url)

    @property
    def usage(self) -> Usage:
        """What was asked and spent so far, by this object."""
        with self._lock:
            return self._gate.usage

    def ask(self, request: Request) -> Reply:
        """One answer.

        Raises:
            RequestRefused: the server refuses this request for good.
            EndpointError: the server refuses the client, does not answer after every attempt, or the budget is used up.
        """
        body = to_body(self.cfg.model, request)
        least = least_need(request, self.cfg)
        for attempt in range(self.cfg.attempts):
            need = self._wait_for_turn(least)
            try:
                reply = self._send(body)
            except Busy as busy:
                self._settle(need, None, spent=busy.spent)
                self._wait_again(attempt, busy)
            except EndpointError:
                self._settle(need, None)
                raise
            else:
                self._settle(need, reply)
                return reply
        raise AssertionError("unreachable: the last attempt raises")

    def ask_all(
        self,
        requests: Sequence[Request | Callable[[], Request]],
        done: Done,
        *,
        start_within_s: float = math.inf,
    ) -> None:
        """Answers to several requests, `cfg.concurrency` at a time; `done` is told of each as it ends.

        Args:
            requests: each may be a function that makes it, called when its turn comes, so that media are not all in
                memory at once; a RequestRefused that it raises is that request's outcome.
            done: told of each outcome.
            start_within_s: seconds in which requests are taken up; those that were have `cfg.patience_s` to end.

        Raises:
            EndpointError: see `ask`; what was answered before has been handed to `done`.
            RequestsLeft: some were not taken up in time, though always some were; these have been handed to `done`.
        """
        waiting = deque(enumerate(requests))
        running: dict[Future[Reply], int] = {}
        failed: EndpointError | None = None
        until = self._clock() + start_within_s

        def is_open() -> bool:
            return bool(waiting) and failed is None and self._clock() < until

        with ThreadPoolExecutor(self.cfg.concurrency, thread_name_prefix="endpoint") as threads:
            try:
                while running or is_open():
                    while is_open() and len(running) < self.cfg.concurrency:
                        index, request = waiting.popleft()
                        running[threads.submit(self._made_and_asked, request)] = index
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        error = self._hand_over(running.pop(future), future, done)
                        failed = failed or error
            finally:
                self._halt.set()  # whatever ended this, no thread goes on waiting
        self._halt.clear()
        if failed is not None:
            raise failed
        if waiting:
            ended, all_ = len(requests) - len(waiting), len(requests)
            raise RequestsLeft(f"{place(self.cfg)}: {ended} of {all_} requests have ended, the others are asked next")

    def _made_and_asked(self, request: Request | Callable[[], Request]) -> Reply:
        return self.ask(request if isinstance(request, Request) else request())

    def _hand_over(self, index: int, future: "Future[Reply]", done: Done) -> EndpointError | None:
        """Gives an outcome to `done`; the error that ends everything, if it is one."""
        error = future.exception()
        if error is None or isinstance(error, RequestRefused):
            done(index, future.result() if error is None else error)
            return None
        if not isinstance(error, EndpointError):
            raise error
        self._halt.set()
        return error

    def _wait_for_turn(self, least: Need) -> Need:
        """Returns when the rates allow a request, which is counted then."""
        while True:
            with self._lock:
                now, need = self._clock(), self._gate.need(least)
                delay = max(self._not_before - now, self._gate.delay(now, need))
                if delay <= 0:
                    self._gate.enter(now, need)
                    return need
            self._rest(delay)

    def _wait_again(self, attempt: int, busy: "Busy") -> None:
        left = self.cfg.attempts - attempt - 1
        asked = busy.retry_after_s
        if left <= 0 or (asked or 0.0) > self.cfg.longest_wait_s:
            why = f"asks to wait {asked:.0f} s" if left > 0 else f"gave no answer in {self.cfg.attempts} attempts"
            raise EndpointError(
                f"{place(self.cfg)} {why} (last: {busy}). What was answered is kept; run the same command again later."
            )
        longest = min(self.cfg.longest_wait_s, _FIRST_PAUSE_S * 2**attempt)
        with self._lock:
            delay = asked if asked is not None else self._jitter.uniform(longest / 2, longest)
            if asked is not None:
                self._not_before = max(self._not_before, self._clock() + asked)
        self._rest(delay)

    def _rest(self, seconds: float) -> None:
        if self._pause(seconds) is True:
            raise EndpointError(f"{place(self.cfg)}: stopped, since another request failed for good")

    def _settle(self, need: Need, reply: Reply | None, *, spent: bool = False) -> None:
        with self._lock:
            self._gate.leave(self._clock(), need, reply, spent=spent)
            first = reply is not None and not reply.counted and not self._told
            self._told = self._told or first
        if first:
            say(
                f"{place(self.cfg)} does not count tokens; each answer is taken for as many as its words and the "
                "longest answer have, media not counted, so state budgets in requests (max_requests)"
            )

    def _send(self, body: bytes) -> Reply:
        request = urllib.request.Request(self.cfg.url.rstrip("/") + "/chat/completions", data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", f"avere_ray/{avere_ray.__version__}")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self.cfg.timeout_s) as answer:
                return read_reply(read_all(answer, time.monotonic() + self.cfg.timeout_s))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException, TimeoutError) as error:
            reason, is_sent = getattr(error, "reason", error), not isinstance(error, urllib.error.URLError)
            raise Busy(f"no answer: {reason or type(error).__name__}", spent=is_sent) from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What a status means: worth another try, this request's fault, or the end."""
        code, said = explained(error)
        if self._key:
            said = said.replace(self._key, "...")  # some servers repeat it
        words = f"{error.code}{f' ({code})' if code else ''}: {said}"
        if code in ("insufficient_quota", "billing_hard_limit_reached"):
            return EndpointError(f"{place(self.cfg)} says the account's quota is used up: {words}")
        if error.code in _AGAIN or error.code >= 500:
            return Busy(words, retry_after(error.headers))
        if error.code in _REQUEST_FAULTS:
            return RequestRefused(f"{place(self.cfg)} refuses the request: {words}")
        hint = f" Set {self.cfg.key_variable} to a valid key." if error.code in (401, 403) else ""
        return EndpointError(f"{place(self.cfg)} refuses to answer: {words}.{hint}")


def _key(cfg: EndpointConfig) -> str:
    if not cfg.url:
        raise ConfigError("no endpoint is named; set its url, for instance https://host/v1, and its model")
    key = os.environ.get(cfg.key_variable, "").strip()
    if not key and not _is_local(cfg.url):
        raise ConfigError(
            f"{place(cfg)} needs a key, and the environment variable {cfg.key_variable} is empty; set it, or name "
            "another one with key_variable"
        )
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {cfg.key_variable} holds characters that no key has; set it again")
    return key


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry clips and key elsewhere; it is refused like any other status."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Without redirects; without a proxy for this machine."""
    proxies = urllib.request.ProxyHandler({}) if _is_local(url) else urllib.request.ProxyHandler()
    return urllib.request.build_opener(proxies, _NoRedirect)
