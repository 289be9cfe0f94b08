"""What Ray raises when an actor or what it answered is gone, and what that means in words."""

from ray.exceptions import GetTimeoutError, ObjectLostError, OutOfMemoryError, RayActorError

from avere_ray.errors import EngineBroken

LOST = (RayActorError, ObjectLostError, OutOfMemoryError, GetTimeoutError, EngineBroken)
"""The actor died, its answer was lost with the node that kept it, Ray's memory monitor ended it, no answer came, or its
engine failed in the middle of its work."""


def cannot_start(error: BaseException) -> bool:
    """Whether the actor's own constructor failed: another one would too."""
    return isinstance(error, RayActorError) and bool(error.actor_init_failed)


def why(error: BaseException, limit_s: float) -> str:
    """What happened, to follow the actor's name; `limit_s` is how long an answer was waited for."""
    words = str(error)
    if isinstance(error, GetTimeoutError):
        return f"gave no answer within {limit_s:g} s"
    if isinstance(error, EngineBroken):
        return f"broke: {last_line(error)}"
    if isinstance(error, OutOfMemoryError) or "OutOfMemory" in words or "memory monitor" in words:
        return "died: out of memory"
    if isinstance(error, ObjectLostError):
        return "lost its answer with the node that kept it"
    return f"died ({_cause(words)})"


def last_line(error: BaseException) -> str:
    """The end of Ray's many lines, where the error that an actor's constructor raised stands."""
    lines = _lines(str(error))
    return lines[-1] if lines else type(error).__name__


def _cause(words: str) -> str:
    """What of Ray's many lines about a dead actor says why."""
    lines = _lines(words)
    cause = next((line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else "")
    return cause.partition(" Worker exit type")[0].rstrip(". ").removeprefix("The actor is dead because ")


def _lines(words: str) -> list[str]:
    return [line.strip() for line in words.splitlines() if line.strip()]
