"""Puts a run's adapter forward, and makes it the champion if no task got significantly worse.

The run's adapter becomes a version in MLflow's model registry with the alias "candidate". Its last evaluation is then
compared with the champion's, or with its own before training where there is no champion yet. The gate: no task is
significantly worse (McNemar's or the clip-wise test, p <= 0.05 after Holm's correction over tasks), no criterion of
rated descriptions is, and all that the champion was asked is tested: the same questions, rated by the same judge, with
the answers of both. If it passes, the alias "champion" moves. Exit code 1 when the gate does not pass.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avere_ray.errors import InputError
from jobs.arguments import Parser, run_with
from jobs.compare import add_tracking

if TYPE_CHECKING:
    from avere_ray.comparison.differences import Pair
    from avere_ray.comparison.results import Evaluation, RunResult
    from avere_ray.tracking.registry import Registered

MODEL = "avere_ray-adapter"
_HOW = "evaluate the base and the adapter, or run the pipeline"


def run(args: argparse.Namespace) -> int:
    """Registers, tests and moves the aliases; prints what decided.

    Raises:
        InputError: the run is not tracked, or has no adapter in MLflow that was evaluated; or the answers of the
            champion are not kept.
        StageError: MLflow does not answer.
    """
    from avere_ray.tracking.past import default_uri
    from avere_ray.tracking.registry import CANDIDATE, CHAMPION, alias_of, evaluated_adapter, register, set_alias

    result = _tracked(args)
    uri = default_uri(args.tracking_uri or result.tracking_uri or None)
    champion = alias_of(uri, args.model, CHAMPION)
    digest = evaluated_adapter(result.tags, result.last().stage)
    _check_told(result, digest)
    if champion is not None and (champion.run_id, champion.digest) == (result.run_id, digest or ""):
        print(f"run {result.name} is the champion already (version {champion.version})")
        return 0
    pair = _pair(result, champion, uri, args.tracking_experiment)
    candidate = register(uri, args.model, result.run_id, digest)
    set_alias(uri, args.model, CANDIDATE, candidate.version)
    print(f"{args.model} version {candidate.version} is the candidate")
    objections = gate(pair)
    for line in objections or [f"no task of {pair.second} is significantly worse than {pair.first}"]:
        print(line)
    if objections:
        print("the gate did not pass; the champion stays as it is")
        return 1
    set_alias(uri, args.model, CHAMPION, candidate.version)
    print(f"{args.model} version {candidate.version} is the champion")
    return 0


def gate(pair: "Pair") -> list[str]:
    """Why the second of a corrected pair may not replace the first; empty when it may."""
    from avere_ray.comparison.report import verdict

    if not (pair.shared or pair.tasks or pair.ratings):
        return [f"{pair.second} cannot be tested against {pair.first}: the answers of one of them are not here"]
    untested = [
        f"{name} is not tested, which {pair.first} was asked: {why}; evaluate both with the same settings"
        for name, why in pair.untested.items()
    ]
    if pair.apart:
        untested.append(
            f"{pair.apart} questions are not the same in both, so they are not paired; evaluate both on the same clips"
        )
    tasks = [
        f"{t.task} is significantly worse: {t.first:.1f} to {t.second:.1f} percent, p (Holm) {t.p_holm:.4f}"
        for t in pair.tasks
        if t.kind == "task" and verdict(t) == "worse"
    ]
    ratings = [
        f"{r.benchmark} {r.criterion} is significantly worse: {r.first:.2f} to {r.second:.2f}, p (Holm) {r.p_holm:.4f}"
        for r in pair.ratings
        if verdict(r) == "worse"
    ]
    return [*untested, *tasks, *ratings]


def _tracked(args: argparse.Namespace) -> "RunResult":
    from avere_ray.comparison.tracked import find_result
    from avere_ray.tracking.past import default_uri, find_run

    result = find_result(args.run, args.tracking_uri, args.tracking_experiment)
    if not result.run_id:
        raise InputError(f"{args.run} is not in MLflow; `avere-ray track {args.run}` sends it")
    uri = default_uri(args.tracking_uri or result.tracking_uri or None)
    tags = find_run(uri, args.tracking_experiment, result.run_id).tags
    return dataclasses.replace(result, tags={**result.tags, **tags})


def _check_told(result: "RunResult", digest: str | None) -> None:
    """Refuses a run whose last evaluation is about another adapter than MLflow was told."""
    from avere_ray.tracking.registry import adapter_digest

    if digest == "":
        raise InputError(f"the newest adapter of {result.name} was not evaluated; {_HOW}")
    own = adapter_digest(result.folder / "adapters" / result.last().stage) if result.folder and digest else ""
    if own and own != digest:
        raise InputError(
            f"MLflow has not been told of the newest adapter in {result.folder}; run `avere-ray evaluate`, or "
            f"`avere-ray track {result.folder}` where MLflow was away"
        )


def _pair(result: "RunResult", champion: "Registered | None", uri: str, experiment: str) -> "Pair":
    from avere_ray.comparison.differences import compare, correct
    from avere_ray.comparison.results import BEFORE
    from avere_ray.comparison.tracked import from_selector

    if champion is not None:
        other = result if champion.run_id == result.run_id else from_selector(uri, experiment, champion.run_id)
        before, labels = answers_of(champion, other, result), (f"the champion ({other.name})", result.name)
        return correct([compare(before, result.last(), labels)])[0]
    if BEFORE not in result.evaluations or len(result.evaluations) < 2:
        raise InputError(
            f"there is no champion yet, and {result.name} was not evaluated before and after training; {_HOW}"
        )
    labels = (f"{result.name} before training", f"{result.name} after it")
    return correct([compare(result.evaluations[BEFORE], result.last(), labels)])[0]


def answers_of(champion: "Registered", run: "RunResult", candidate: "RunResult") -> "Evaluation":
    """The evaluation of the champion's very adapter among those of its run, which may have been continued since.

    Raises:
        InputError: there is none any more.
    """
    from avere_ray.tracking.registry import evaluated_adapter

    known = {stage: evaluated_adapter(run.tags, stage) for stage in run.evaluations}
    same = [stage for stage, digest in known.items() if digest and digest == champion.digest]
    if same:
        return run.evaluations[same[-1]]
    if run.run_id != candidate.run_id and not champion.digest:
        return run.last()
    raise InputError(
        f"the champion (version {champion.version}) is an earlier adapter of {run.name}, which was continued; its "
        f"answers are not kept, so nothing can be tested. Evaluate the new adapter in a run_dir of its own, or set the "
        f"alias champion in MLflow by hand"
    )


def parser() -> Parser:
    """The arguments of `avere-ray promote`."""
    made = Parser("avere-ray promote", __doc__)
    made.add_argument("run", metavar="RUN", help="run folder, MLflow run id or name")
    made.add_argument("--model", default=MODEL, metavar="NAME", help=f"registered model ({MODEL})")
    add_tracking(made)
    return made


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_with(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
