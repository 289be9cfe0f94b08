"""Small runs of the pipeline that are struck at a chosen moment: which process, in which call, with which signal.

A process is found by the title that Ray gives it ("ray::JudgeWorker.judge" while it answers) among the descendants of
the run's own driver, so that no other cluster of the machine is touched.
"""

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import runs

from avere_ray.metrics import read_events
from avere_ray.stages import read_manifest

SETTINGS = (
    "--world.train_clips=8",
    "--world.test_clips=2",
    "--rollout.batch_queries=4",
    "--train.epochs=4",
    "--train.pairs_per_step=4",
    "--train.micro_pairs=2",
    "--train.checkpoint_every=2",
    "--tracking.system_every_s=0",
)
STAGES = ("decoded", "rollouts/round=0", "verdicts/round=0", "pairs/round=0", "reference/round=0", "adapters/round=0",
          "evals/round=0")  # fmt: skip
LIMIT_S = 600.0
GONE_S = 120.0
"""How long a run's processes may take to end after their driver: Ray's agents try for a minute to reach a dead head."""
Moment = Callable[["Run"], psutil.Process]
"""Waits for a moment of a run; the process that is at work then."""


class Run:
    """A pipeline in a process of its own; whatever is left of it at the end is ended by process id."""

    def __init__(self, run_dir: Path, *settings: str, env: dict[str, str] | None = None) -> None:
        self.run_dir = run_dir
        self.process = runs.start(run_dir, *SETTINGS, *settings, env=env)
        self._known: dict[int, psutil.Process] = {}

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.below()
        runs.end(self.process)
        for process in self.left(GONE_S):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def driver(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def below(self) -> list[psutil.Process]:
        """The processes that the run has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known |= {p.pid: p for p in self.driver.children(recursive=True)}
        return list(self._known.values())

    def left(self, limit_s: float) -> list[psutil.Process]:
        """Those that are still there when they have had so many seconds to end."""
        end = time.monotonic() + limit_s
        while (left := [p for p in self._known.values() if _alive(p)]) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def strike(self, moment: Moment, number: signal.Signals) -> None:
        """Sends a signal to what is at work at a moment."""
        moment(self).send_signal(number)

    def strike_driver(self, moment: Moment, number: signal.Signals) -> str:
        """Sends a signal to the driver at a moment, waits for its end and for that of all it started; its output."""
        moment(self)
        self.below()
        self.process.send_signal(number)
        output = self.output()
        left = self.left(GONE_S)
        assert not left, [" ".join(p.cmdline()[:3]) for p in left]
        return output

    def output(self) -> str:
        """What it printed until its end."""
        return self.process.communicate(timeout=LIMIT_S)[0]

    def wait(self, ready: Callable[[], bool], what: str, every_s: float = 0.02) -> None:
        limit = time.monotonic() + LIMIT_S
        while not ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the run ended before {what}: {self.output()[-3000:]}")
            assert time.monotonic() < limit, f"not reached: {what}"
            time.sleep(every_s)


def in_call(worker: str, method: str, nth: int = 1, after: str = "") -> Moment:
    """While a worker answers its nth call of a method, once the stage `after` is finished."""

    def moment(run: Run) -> psutil.Process:
        if after:
            run.wait((run.run_dir / after / "manifest.json").exists, f"the end of {after}")
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [p for p in run.below() if _title(p).startswith(f"ray::{worker}")]
            return bool(found)

        run.wait(there, f"a {worker}")
        for _ in range(nth):
            run.wait(lambda: f".{method}" not in _title(found[0]), f"no {worker}.{method}", every_s=0.0005)
            run.wait(lambda: f".{method}" in _title(found[0]), f"{worker}.{method}", every_s=0.0005)
        return found[0]

    return moment


def with_a_call(worker: str) -> Moment:
    """With a call that the driver waits for, where an answer takes less time than a blow: the worker, which starts when
    it is first asked, is stopped as soon as it is there."""

    def moment(run: Run) -> psutil.Process:
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [p for p in run.below() if _title(p).startswith(f"ray::{worker}")]
            return bool(found)

        run.wait(there, f"a {worker}", every_s=0.0005)
        found[0].send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        return found[0]

    return moment


def starting(worker: str) -> Moment:
    """While a worker is being made."""

    def moment(run: Run) -> psutil.Process:
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [p for p in run.below() if _title(p) == f"ray::{worker}.__init__"]
            return bool(found)

        run.wait(there, f"the start of a {worker}")
        return found[0]

    return moment


def in_stage(stage: str) -> Moment:
    """While a stage has begun and is not finished; the driver."""

    def moment(run: Run) -> psutil.Process:
        run.wait((run.run_dir / stage).is_dir, f"stage {stage}", every_s=0.005)
        return run.driver

    return moment


def at_step(step: int) -> Moment:
    """When an optimizer step is logged; a worker of Ray Train, or the driver where the workers are on other nodes."""

    def moment(run: Run) -> psutil.Process:
        run.wait(lambda: any(logged >= step for logged, *_ in steps(run.run_dir)), f"step {step}")
        return next((p for p in run.below() if "RayTrainWorker" in _title(p)), run.driver)

    return moment


def steps(run_dir: Path, round_: int = 0) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of everything that the learner logged, in order."""
    events = read_events(run_dir / "metrics" / f"train-round{round_}.jsonl")
    return [(e.body["step"], e.metrics["loss"], e.metrics["grad_norm"]) for e in events if e.metrics]


def digests(run_dir: Path, stages: tuple[str, ...] = STAGES) -> dict[str, str]:
    """What a run's stages hold, bit for bit."""
    manifests = {stage: read_manifest(run_dir / stage) for stage in stages}
    return {stage: manifest.output_digest if manifest else "unfinished" for stage, manifest in manifests.items()}


def summary(run_dir: Path, stage: str) -> dict[str, float]:
    """The summary of a finished stage."""
    manifest = read_manifest(run_dir / stage)
    assert manifest is not None, stage
    return manifest.summary


def copied(source: Path, run_dir: Path, stages: tuple[str, ...]) -> Path:
    """A run folder in which these stages are finished as in another run, with what a learner logged; no cache comes
    along."""
    for stage in ("clips", *stages):
        shutil.copytree(source / stage, run_dir / stage)
        if stage.startswith("adapters/"):
            (run_dir / "metrics").mkdir()
            shutil.copy(source / "metrics" / "train-round0.jsonl", run_dir / "metrics")
    shutil.copytree(source.parent / "store", run_dir.parent / "store")
    return run_dir


@contextlib.contextmanager
def completed(run_dir: Path, *settings: str) -> Iterator[str]:
    """A run that goes on to its end; what it printed."""
    with Run(run_dir, *settings) as run:
        output = run.output()
        assert run.process.returncode == 0, output[-3000:]
        yield output


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).rstrip()  # a shorter title is filled up to the length of the one before
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
