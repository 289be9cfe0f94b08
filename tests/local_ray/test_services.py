"""The supervision of judge, swap actor and scorer, on real actors that are killed and stopped while they answer."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pairmaker import make_pair

from avere_ray.config import RunConfig
from avere_ray.errors import InputError, RequestsLeft, StageError
from avere_ray.records import PreferencePair, ReferenceLogps
from avere_ray.reference import unscored
from jobs.workers import Workers

pytestmark = pytest.mark.usefixtures("local_ray")

WAIT_S = 60.0
PAIRS = [make_pair(n, 4) for n in range(6)]


def worker_class() -> type:
    """The actor; made in a function, since Ray's processes cannot import a test."""

    class Worker:
        """Answers; where it is told to, it first writes its process id into a file, and waits until that is gone."""

        def __init__(self, folder: Path, *, fails: bool = False) -> None:
            if fails:
                raise InputError("the model folder is empty")
            self.folder, self.known = folder, list[str]()

        def arrive(self, name: str) -> None:
            self.known.append(name)

        def double(self, number: int) -> tuple[int, list[str]]:
            self._wait()
            if number < 0:
                raise InputError(f"{number} is below 0")
            return 2 * number, self.known

        def judge(self, *_: Any) -> list[int]:
            self.known.append("asked")
            if len(self.known) < 3:
                raise RequestsLeft(f"m: {len(self.known)} of 3 requests have ended, the others are asked next")
            return [os.getpid()]

        def score_pairs(self, pairs: list[PreferencePair], **_: Any) -> list[ReferenceLogps]:
            if any(pair.pair_id == PAIRS[3].pair_id for pair in pairs):
                self._wait()
            return [unscored(pair) for pair in pairs]

        def _wait(self) -> None:
            if (self.folder / "wait").exists():
                (self.folder / "partial").write_text(str(os.getpid()))
                (self.folder / "partial").rename(self.folder / "pid")
                end = time.monotonic() + WAIT_S
                while (self.folder / "wait").exists() and time.monotonic() < end:
                    time.sleep(0.01)

    return Worker


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    import ray

    from actors.service import Service

    actor = ray.remote(worker_class()).options(num_cpus=0)
    made = Service("worker", partial(actor.remote, tmp_path), deadline_s=WAIT_S, remedy="Raise worker.deadline_s.")
    yield made
    made.close()


def signal_when_it_answers(folder: Path, number: signal.Signals) -> threading.Thread:
    """Makes the actor wait in its next call, and sends it a signal there."""
    (folder / "wait").touch()

    def send() -> None:
        end = time.monotonic() + WAIT_S
        while not (folder / "pid").exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(int((folder / "pid").read_text()), number)
        (folder / "pid").unlink()
        (folder / "wait").unlink()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_killed_actor_is_started_again_told_again_and_asked_again(service: Any, tmp_path: Path) -> None:
    service.tell("arrive", "clip0")
    assert service.ask("pairs", "double", 3) == (6, ["clip0"])
    service.tell("arrive", "clip1")
    first = service.process_id()
    killer = signal_when_it_answers(tmp_path, signal.SIGKILL)
    assert service.ask("pairs", "double", 4) == (8, ["clip0", "clip1"])
    killer.join(WAIT_S)
    assert service.process_id() != first
    assert (service.take_replaced(), service.take_replaced()) == (1, 0)


def test_a_stopped_actor_is_replaced_when_its_deadline_has_passed(service: Any, tmp_path: Path) -> None:
    service.ask("pairs", "double", 3)
    service.deadline_s = 1.0
    signal_when_it_answers(tmp_path, signal.SIGSTOP)
    assert service.ask("pairs", "double", 4) == (8, [])
    assert service.take_replaced() == 1


def test_an_actor_lost_again_and_again_ends_the_stage_with_what_to_change(service: Any, tmp_path: Path) -> None:
    service.ask("pairs", "double", 3)
    (tmp_path / "wait").touch()
    service.deadline_s = 0.2
    words = r"pairs: the worker gave no answer within 0\.2 s, 3 times in a row\. Raise worker\.deadline_s\."
    with pytest.raises(StageError, match=words):
        service.ask("pairs", "double", 4)
    (tmp_path / "wait").unlink()


def test_what_an_actor_raises_is_an_answer(service: Any, tmp_path: Path) -> None:
    import ray

    from actors.service import Service

    with pytest.raises(InputError, match="-1 is below 0"):
        service.ask("pairs", "double", -1)
    assert service.take_replaced() == 0
    failing = partial(ray.remote(worker_class()).options(num_cpus=0).remote, tmp_path, fails=True)
    with pytest.raises(StageError, match=r"pairs: the worker cannot start: .*the model folder is empty"):
        Service("worker", failing, deadline_s=WAIT_S, remedy="").ask("pairs", "double", 1)


def test_a_judge_with_requests_left_is_asked_again_in_its_process(
    service: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers(RunConfig(run_dir=tmp_path))
    workers.__dict__["judge"] = service
    assert workers.judged([], {}, {}) == [service.process_id()]
    assert service.take_replaced() == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("judge:")]
    assert said == [f"judge: m: {n} of 3 requests have ended, the others are asked next" for n in (1, 2)]


def test_a_scorer_killed_in_mid_stage_is_asked_for_the_rest(service: Any, tmp_path: Path) -> None:
    from actors.scoring import score_remotely
    from avere_ray.data import scored_stream

    found: list[ReferenceLogps] = []
    starts: list[int] = []

    def rest(actor: Any) -> Iterator[list[ReferenceLogps]]:
        starts.append(len(found))
        score = partial(score_remotely, scorer=actor, weights="w", dtype="float32", adapter=None, limit_s=WAIT_S)
        return scored_stream(PAIRS[len(found) :], score, batch=1, stall_s=2 * WAIT_S)

    signal_when_it_answers(tmp_path, signal.SIGKILL)
    for part in service.stream("reference", rest):
        found += part
    assert [figures.pair_id for figures in found] == [pair.pair_id for pair in PAIRS]
    assert (len(starts), starts[0]) == (2, 0)
    assert service.take_replaced() == 1
