"""One long-lived actor that answers calls, supervised: each call has a deadline, and an actor that died or does not
answer is ended, started again and asked again.

What is asked depends on the arguments alone, so an answer of a second actor is that of the first. An error that the
actor itself raises is an answer too: it is raised as it is, and nobody tries again.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError

from actors.lost import LOST, cannot_start, last_line, why
from avere_ray.errors import ActorLost, StageError

ATTEMPTS = 3
START_S = 600.0
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Service:
    """An actor by its name, whichever process it lives in now; starts when it is first asked."""

    def __init__(
        self, name: str, start: Callable[[], Any], *, deadline_s: float, remedy: str, start_s: float = START_S
    ) -> None:
        """
        Args:
            name: what it is called in messages, for instance "judge".
            start: starts an actor and returns its handle.
            deadline_s: seconds that one call may take.
            remedy: what to change when it is lost again and again: a sentence that names the settings.
            start_s: seconds that starting may take.
        """
        self.name, self.deadline_s, self.start_s = name, deadline_s, start_s
        self._new, self._remedy = start, remedy
        self._actor: Any = None
        self._is_up = False
        self._told: list[tuple[str, tuple[Any, ...]]] = []
        self._replaced = 0

    def start(self) -> None:
        """Starts the actor if there is none, without waiting for it."""
        if self._actor is None:
            self._actor, self._is_up = self._new(), False
            for method, args in self._told:
                getattr(self._actor, method).remote(*args)

    def tell(self, method: str, *args: Any) -> None:
        """A call whose answer nobody waits for; later actors are told as well."""
        self._told.append((method, args))
        if self._actor is not None:
            getattr(self._actor, method).remote(*args)

    def ask(self, stage: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The answer to one call, made for `stage`.

        Raises:
            StageError: the actor does not start, or was lost three times in a row. What it raised itself is raised.
        """

        def once(actor: Any) -> Iterator[Any]:
            yield answer(getattr(actor, method).remote(*args, **kwargs), self.deadline_s)

        return next(self.stream(stage, once))

    def stream(self, stage: str, rest: Callable[[Any], Iterator[_T]]) -> Iterator[_T]:
        """What `rest` gives, which asks the actor it is given; it is called again with another one after a loss.

        Args:
            rest: gives what has not come yet; raises ActorLost when its actor is lost.

        Raises:
            StageError: see `ask`; an item that comes in between starts the count again.
        """
        lost = 0
        while True:
            try:
                for item in rest(self._ready(stage)):
                    lost = 0
                    yield item
                return
            except ActorLost as error:
                lost += 1
                self._replace(stage, str(error), lost)

    def take_replaced(self) -> int:
        """How often the actor was replaced since this was last asked."""
        count, self._replaced = self._replaced, 0
        return count

    def process_id(self) -> int:
        """Id of the actor's process, on its node."""
        self.start()
        return ray.get(self._actor.__ray_call__.remote(_process_id), timeout=self.start_s)

    def close(self) -> None:
        """Ends the actor, if there is one."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _ready(self, stage: str) -> Any:
        """The handle of an actor that has come up; whether it still answers, the call will tell.

        Raises:
            ActorLost: it died before it was.
            StageError: it does not come up, or cannot: another one would not either.
        """
        self.start()
        if self._is_up:
            return self._actor
        try:
            ray.get(self._actor.__ray_ready__.remote(), timeout=self.start_s)
        except GetTimeoutError as error:
            raise StageError(
                f"{stage}: the {self.name} did not start within {self.start_s:g} s; check that the cluster has the "
                "CPUs, GPUs and memory that the config asks for"
            ) from error
        except LOST as error:
            if cannot_start(error):
                raise StageError(f"{stage}: the {self.name} cannot start: {last_line(error)}") from error
            raise ActorLost(why(error, self.start_s)) from error
        self._is_up = True
        return self._actor

    def _replace(self, stage: str, reason: str, lost: int) -> None:
        self.close()
        if lost >= ATTEMPTS:
            raise StageError(f"{stage}: the {self.name} {reason}, {lost} times in a row. {self._remedy}")
        _log.warning("%s: the %s %s; it is started again and asked again", stage, self.name, reason)
        self._replaced += 1


def answer(ref: Any, deadline_s: float) -> Any:
    """The answer to an actor call.

    Raises:
        ActorLost: the actor died, its answer is lost, or it gave none within `deadline_s` seconds.
    """
    try:
        return ray.get(ref, timeout=deadline_s)
    except LOST as error:
        raise ActorLost(why(error, deadline_s)) from error


def _process_id(_: Any) -> int:
    import os

    return os.getpid()
