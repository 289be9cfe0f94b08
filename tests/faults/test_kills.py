"""Every process of a run is killed or stopped while it works: the run ends bit for bit like one that nobody disturbed.

Same rollouts, verdicts, pairs, reference figures, losses, adapter and answers. One undisturbed run serves all cases; a
case begins with the stages before the blow already finished.
"""

import signal
from pathlib import Path

import pytest
from raynodes import Nodes
from striking import (
    STAGES,
    Moment,
    Run,
    at_step,
    completed,
    copied,
    digests,
    in_call,
    in_stage,
    runs,
    starting,
    steps,
    summary,
    with_a_call,
)

KILL, STOP, TERM, CTRL_C = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT
CONTINUE = "finished stages are kept; run the same command again to continue"
EVALS = "evals/before"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    with completed(run_dir):
        assert len(steps(run_dir)) > 12
        return run_dir


def check_same(run_dir: Path, undisturbed: Path) -> None:
    assert digests(run_dir) == digests(undisturbed)
    assert steps(run_dir) == steps(undisturbed)
    assert runs.without_timing(runs.report(run_dir)) == runs.without_timing(runs.report(undisturbed))
    assert runs.points(run_dir) == runs.points(undisturbed)


BLOWS = {
    "rollout worker that starts": (1, starting("RolloutWorker"), KILL, "engines_replaced", ""),
    "rollout worker in the parity gate": (1, in_call("RolloutWorker", "generate"), KILL, "engines_replaced", ""),
    "rollout worker": (1, in_call("RolloutWorker", "generate", nth=3), KILL, "engines_replaced", ""),
    "judge": (2, in_call("JudgeWorker", "judge"), KILL, "judges_replaced", ""),
    "judge stopped": (2, in_call("JudgeWorker", "judge"), STOP, "judges_replaced", "--judge.deadline_s=10"),
    "swap actor": (3, with_a_call("ModalitySwapWorker"), KILL, "swap_actors_replaced", ""),
    "swap actor stopped": (3, with_a_call("ModalitySwapWorker"), STOP, "swap_actors_replaced",
                           "--preference.swap_deadline_s=10"),
    "scorer": (4, in_call("ScorerWorker", "score_pairs"), KILL, "scorers_replaced", ""),
    "scorer stopped": (4, in_call("ScorerWorker", "score_pairs"), STOP, "scorers_replaced",
                       "--rollout.scorer_deadline_s=30"),
    "train worker": (5, at_step(5), KILL, "", ""),
    "train worker stopped": (5, at_step(5), STOP, "", "--train.deadline_s=120"),
    "rollout worker that evaluates": (6, in_call("RolloutWorker", "generate", nth=2), KILL, "engines_replaced", ""),
    "rollout worker that evaluates, stopped": (6, in_call("RolloutWorker", "generate", nth=2), STOP,
                                               "engines_replaced", "--rollout.deadline_s=30"),
}  # fmt: skip
"""Stages that are finished, the moment, the signal, the figure that counts replacements, a setting."""


@pytest.mark.parametrize("name", BLOWS)
def test_a_lost_worker_changes_nothing(undisturbed: Path, tmp_path: Path, name: str) -> None:
    count, moment, number, replaced, setting = BLOWS[name]
    run_dir = copied(undisturbed, tmp_path / "run", (*STAGES[:count], EVALS))
    with Run(run_dir, *filter(None, [setting])) as run:
        run.strike(moment, number)
        output = run.output()
        assert run.process.returncode == 0, output[-3000:]
    check_same(run_dir, undisturbed)
    if replaced:
        assert summary(run_dir, STAGES[count])[replaced] == 1


MOMENTS: dict[str, Moment] = {
    "decode": in_stage("decoded"),
    "first rollouts": in_stage("rollouts/unfinished"),
    "evaluation before": in_call("RolloutWorker", "generate", nth=2),
    "rollouts": in_call("RolloutWorker", "generate", nth=2, after=EVALS),
    "judge": in_call("JudgeWorker", "judge"),
    "swaps": in_call("ModalitySwapWorker", "swap"),
    "reference": in_call("ScorerWorker", "score_pairs"),
    "train": at_step(5),
    "evaluation after": in_call("RolloutWorker", "generate", nth=2, after="adapters/round=0"),
}
"""In the order in which a run that is started again and again meets them; the first call is the parity gate's."""


def test_a_driver_killed_in_every_stage_goes_on_where_it_was(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for moment in MOMENTS.values():
        with Run(run_dir) as run:
            run.strike_driver(moment, KILL)
            assert run.process.returncode == -KILL
        assert not (run_dir / "report.json").exists()
    with completed(run_dir) as output:
        assert "training of round 0: finished earlier, reused" in output
    assert summary(run_dir, STAGES[1])["queries_answered_before"] >= 4, "a batch was answered before the driver died"
    check_same(run_dir, undisturbed)


@pytest.mark.parametrize("number", [TERM, CTRL_C])
def test_a_run_that_is_asked_to_end_says_how_to_go_on(
    undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Its exit code tells, nothing of it stays behind, and no manifest is there before its stage is done."""
    run_dir = tmp_path / "run"
    for name, unfinished in (("decode", "decoded"), ("first rollouts", "rollouts/round=0"), ("train", STAGES[5])):
        with Run(run_dir) as run:
            output = run.strike_driver(MOMENTS[name], number)
            assert run.process.returncode == 128 + number, output[-3000:]
        assert output.strip().splitlines()[-1].endswith(CONTINUE)
        assert not (run_dir / unfinished / "manifest.json").exists()
    with completed(run_dir) as output:
        assert "goes on from the checkpoint after step" in output
    check_same(run_dir, undisturbed)


NODES = {
    "decode and train": (("decode", "learner"), (), (in_stage("decoded"), at_step(5))),
    "everything between": (
        ("rollout",),
        ("decoded",),
        tuple(in_stage(f"{stage}/round=0") for stage in ("rollouts", "verdicts", "pairs", "reference", "evals")),
    ),
}  # fmt: skip
"""What works on the node that is lost, the stages that are finished before, and when it is lost."""


@pytest.mark.parametrize("name", NODES)
def test_a_node_lost_in_mid_stage_changes_nothing(undisturbed: Path, tmp_path: Path, name: str) -> None:
    """The raylet and all processes of a second node are killed, and another node comes; the driver is on the first."""
    there, before, moments = NODES[name]
    run_dir = tmp_path / "shared" / "run"
    if before:
        copied(undisturbed, run_dir, before)
    with Nodes(runs.environment(), tmp_path) as nodes:
        nodes.start(head=2, work=2)
        places = {stage: "work" if stage in there else "head" for stage in ("decode", "rollout", "learner")}
        settings = [f"--placement.{stage}={role}" for stage, role in places.items()]
        with Run(run_dir, f"--ray.address={nodes.ask('gcs')['address']}", *settings, env=nodes.env) as run:
            for moment in moments:
                moment(run)
                nodes.lose("work")
                nodes.add("work", 2)
            output = run.output()
            assert run.process.returncode == 0, output[-3000:]
    check_same(run_dir, undisturbed)
