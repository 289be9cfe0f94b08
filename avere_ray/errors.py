"""Errors written for the person who must act: what was wrong, the value, what is allowed, what to do.

    AvereError
    +-- ConfigError            a setting is unknown, of the wrong type, or contradicts another
    +-- InputError             a file or folder named by the user is missing, empty or unusable
    |   +-- ModelError         a model or adapter folder cannot be used
    |   +-- RowError           one row of a data file cannot be used (turned into a Drop)
    +-- ClipDecodeError        one clip cannot be decoded (the pipeline turns it into a Drop)
    +-- VerdictParseError      a judge's reply cannot be read
    +-- StageError             a stage could not finish or its result does not add up
    |   +-- DropBudgetExceeded more inputs were dropped than the budget allows
    |   +-- StorageError       a result could not be written (disk full, no permission)
    |   +-- EndpointError      a remote endpoint refuses, does not answer, or its budget is used up
    |   |   +-- RequestRefused it refuses one request, and would take others
    |   |   +-- RequestsLeft   it was not asked everything in the time of one call; whoever calls asks again
    |   +-- ActorLost          an actor died or does not answer; whoever supervises it starts another one
    |   +-- EngineBroken       an engine failed in the middle of its work; whoever supervises it starts another one
    +-- ClusterError           Ray does not answer, or cannot place what was asked for
    +-- ParityError            the engine and the learner disagree about the same tokens
    +-- TrainingError          the loss or a gradient is not finite, or a worker failed

All are picklable with their message alone, so they cross process boundaries unchanged.
"""


class AvereError(Exception):
    """Root of every error this project raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(AvereError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class InputError(AvereError, ValueError):
    """A file or folder named by the user is missing, empty or unusable."""

    exit_code = 2


class ModelError(InputError):
    """A model or adapter folder cannot be used."""


class RowError(InputError):
    """One row of a data file cannot be used; names file, line and field.

    `reason` is the short code stored in the ledger, for instance "missing_media".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class ClipDecodeError(AvereError, ValueError):
    """One clip cannot be decoded.

    `reason` is the short code stored in the ledger, for instance "no_audio_stream".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class VerdictParseError(AvereError, ValueError):
    """A judge's reply cannot be read as a verdict."""


class StageError(AvereError, RuntimeError):
    """A stage could not finish or its result does not add up."""


class DropBudgetExceeded(StageError):
    """More inputs were dropped than `drop_budget` allows."""

    exit_code = 3


class StorageError(StageError, OSError):
    """A result could not be written (disk full, no permission)."""

    exit_code = 4


class ClusterError(AvereError, ConnectionError):
    """Ray does not answer, or cannot place what was asked for."""

    exit_code = 5


class ParityError(StageError):
    """The engine and the learner disagree about the same tokens."""

    exit_code = 6


class TrainingError(StageError):
    """The loss or a gradient is not finite, or a training worker failed."""

    exit_code = 7


class ActorLost(StageError):
    """An actor died or does not answer; whoever supervises it starts another one. The message is the reason alone."""


class EngineBroken(StageError):
    """An engine failed in the middle of its work and cannot be asked again; whoever supervises it starts another."""


class EndpointError(StageError):
    """A remote endpoint refuses, does not answer, or the budget for it is used up; what it answered is kept."""

    exit_code = 8


class RequestRefused(EndpointError):
    """A remote endpoint refuses one request for good, and would take others: too large, filtered, malformed."""


class RequestsLeft(EndpointError):
    """A remote endpoint was not asked everything in the time of one call. What it answered is kept, so the same call
    goes on from there."""
