"""Ray's job server: sending a job, finding one that was sent before, following its log, and how it ended."""

import asyncio
import socket
import tempfile
import time
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avere_ray.errors import ClusterError, ConfigError
from avere_ray.progress import say
from jobs.package import Package

ADDRESS = "http://127.0.0.1:8265"
ATTEMPTS = 100

_STARTING = "No available agent"
"""What Ray says while the processes that start drivers are not up yet."""
_AGAIN_AFTER_S = 1.0
_FINAL_BAD = ("FAILED", "STOPPED")
_SILENCE_S = 30.0
"""Seconds without a line of the log after which the server is asked whether it is still there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a submission is going to do."""

    verb: str
    submission_id: str
    entrypoint: str
    address: str
    package: Package


def connect(address: str, timeout_s: float) -> Any:
    """A client of Ray's job server.

    Raises:
        ConfigError: the address is no http address.
        ClusterError: it does not answer within `timeout_s`, refuses the token, or runs another version.
    """
    try:
        _reach(address, timeout_s)  # Ray's client waits without a limit
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(address)
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray job server at {address}: {error}. Forward its port (kubectl port-forward), check the address and "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN."
        ) from error


def submit_and_follow(client: Any, plan: Plan, *, patience_s: float = 0.0) -> int:
    """Submits a plan, or finds it submitted, prints its log until it ends, and returns its exit code.

    `patience_s`: seconds to try again while a cluster that was just started has nothing to run a job's driver yet.

    Raises:
        ClusterError: Ray refuses the job, or the connection is lost.
        ConfigError: the id belongs to a job with other code, config or verb.
    """
    plan, state = first_open_attempt(client, plan)
    if state is not None:
        _check_same(client, plan)
    if state == "SUCCEEDED":
        say(f"submit: {plan.submission_id} has succeeded before; change the config or --submission-id to run it again")
        return 0
    if state is None:
        _send(client, plan, patience_s)
        say(f"submit: {plan.submission_id} is submitted")
    else:
        say(f"submit: {plan.submission_id} is {state.lower()} already; following it")
    try:
        asyncio.run(_print_log(client, plan))
        return exit_code(client, plan.submission_id)
    except KeyboardInterrupt:
        say(
            f"submit: the job goes on. Submit again to follow it, or stop it with: "
            f"ray job stop {plan.submission_id} --address {plan.address}"
        )
        raise
    except (ConnectionError, RuntimeError, OSError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(
            f"lost {plan.address} while following {plan.submission_id}: {error}. Submit again to follow it."
        ) from error


def first_open_attempt(client: Any, plan: Plan) -> tuple[Plan, str | None]:
    """The plan under the first id whose job has not failed, and that job's state; None when there is no such job yet.

    Raises:
        ClusterError: there are a hundred failed attempts.
    """
    for attempt in range(1, ATTEMPTS + 1):
        name = plan.submission_id if attempt == 1 else f"{plan.submission_id}-{attempt}"
        state = job_state(client, name)
        if state not in _FINAL_BAD:
            return replace(plan, submission_id=name), state
    raise ClusterError(f"{plan.submission_id} has failed {ATTEMPTS} times; look at its logs before submitting again")


def job_state(client: Any, submission_id: str) -> str | None:
    """State of a job, for instance "RUNNING"; None when Ray does not know it.

    Raises:
        ClusterError: the question could not be answered.
    """
    try:
        return str(client.get_job_status(submission_id).value)
    except RuntimeError as error:
        if "does not exist" in str(error):
            return None
        raise ClusterError(f"cannot ask for {submission_id}: {error}") from error
    except (ConnectionError, OSError) as error:
        raise ClusterError(f"cannot ask for {submission_id}: {error}") from error


def exit_code(client: Any, submission_id: str) -> int:
    """The exit code of an ended job: 0 when it succeeded, its driver's when that is known, else 1.

    Raises:
        ClusterError: the job has not ended.
    """
    info = client.get_job_info(submission_id)
    state = str(getattr(info.status, "value", info.status))
    if state == "SUCCEEDED":
        say(f"submit: {submission_id} succeeded")
        return 0
    if state not in _FINAL_BAD:
        raise ClusterError(f"the log of {submission_id} ended while it is {state.lower()}; submit again to follow it")
    last = (str(info.message or "").strip().splitlines() or [""])[-1]
    say(f"submit: {submission_id} {state.lower()}{': ' + last if last else ''}")
    code = int(info.driver_exit_code or 1)
    return 128 - code if code < 0 else code  # a driver that signal 9 ended has -9, a shell says 137


def _check_same(client: Any, plan: Plan) -> None:
    """Whether the job that has a plan's id is the plan's.

    Raises:
        ConfigError: it was made from other code, another config or another verb, or by somebody else.
        ClusterError: the question could not be answered.
    """
    try:
        found = client.get_job_info(plan.submission_id).metadata or {}
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ClusterError(f"cannot ask for {plan.submission_id}: {error}") from error
    names = {"avere_ray_package": "code or config", "avere_ray_verb": "verb"}
    other = [words for name, words in names.items() if found.get(name) != _metadata(plan)[name]]
    if other:
        raise ConfigError(
            f"--submission-id={plan.submission_id}: the job with this id has another {' and another '.join(other)}; "
            "name another id, or leave the flag out, which gives every code and config an id of its own"
        )


def _metadata(plan: Plan) -> dict[str, str]:
    """What is kept with a job to know it again; the package's digest covers the config, arguments included."""
    return {"avere_ray_package": plan.package.digest, "avere_ray_verb": plan.verb}


def _send(client: Any, plan: Plan, patience_s: float) -> None:
    limit = time.monotonic() + patience_s
    with tempfile.TemporaryDirectory(prefix="avere-ray-") as folder:
        working_dir = plan.package.write(Path(folder))
        while True:
            try:
                client.submit_job(
                    entrypoint=plan.entrypoint,
                    submission_id=plan.submission_id,
                    runtime_env={"working_dir": str(working_dir)},
                    metadata=_metadata(plan),
                )
                return
            except (RuntimeError, ConnectionError, ValueError) as error:
                if _STARTING not in str(error) or time.monotonic() >= limit:
                    raise ClusterError(f"Ray refuses {plan.submission_id}: {error}") from error
            time.sleep(_AGAIN_AFTER_S)


async def _print_log(client: Any, plan: Plan) -> None:
    """Prints the job's log as it comes.

    Raises:
        ConnectionError: the server is gone, also when the connection to it is only silent.
    """
    import aiohttp

    lines = client.tail_job_logs(plan.submission_id)
    try:
        while (text := await _next_of(lines, plan.address)) is not None:
            print(text, end="", flush=True)
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


async def _next_of(lines: Any, address: str) -> str | None:
    """The next part of a log, None at its end; as long as none comes, asks whether the server is there."""

    async def following() -> str | None:
        return await anext(lines, None)

    part = asyncio.ensure_future(following())
    while not (await asyncio.wait({part}, timeout=_SILENCE_S))[0]:
        _reach(address, _SILENCE_S)
    return part.result()


def _reach(address: str, timeout_s: float) -> None:
    """Opens a connection and closes it.

    Raises:
        ConfigError: the address is no http address.
        OSError: nobody answers.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{address} is no address of a Ray job server; for instance {ADDRESS}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname, port), timeout_s).close()
