"""Puts a run's adapter forward, and makes it the champion if no task got significantly worse.

The run's adapter becomes a version in MLflow's model registry with the alias "candidate". Its last evaluation is then
compared with the champion's, or with its own before training where there is no champion yet. The gate: no task is
significantly worse (McNemar's or the clip-wise test, p <= 0.05 after Holm's correction over tasks), no criterion of
rated descriptions is, and all that the champion was asked is tested: the same questions, rated by the same judge, with
the answers of both. If it passes, the alias "champion" moves. Exit code 1 when the gate does not pass.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avere_ray.errors import InputError
from jobs.arguments import Parser, run_with
from jobs.compare import add_tracking

if TYPE_CHECKING:
    from avere_ray.comparison.differences import Pair
    from avere_ray.comparison.results import RunResult

MODEL = "avere_ray-adapter"


def run(args: argparse.Namespace) -> int:
    """Registers, tests and moves the aliases; prints what decided.

    Raises:
        InputError: the run is not tracked, or has no adapter in MLflow.
        StageError: MLflow does not answer.
    """
    from avere_ray.tracking.past import default_uri
    from avere_ray.tracking.registry import CANDIDATE, CHAMPION, alias_of, register, set_alias

    result = _tracked(args)
    uri = default_uri(args.tracking_uri or result.tracking_uri or None)
    champion = alias_of(uri, args.model, CHAMPION)
    if champion is not None and champion.run_id == result.run_id:
        print(f"run {result.name} is the champion already (version {champion.version})")
        return 0
    pair = _pair(result, champion.run_id if champion else None, uri, args.tracking_experiment)
    candidate = register(uri, args.model, result.run_id)
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

    result = find_result(args.run, args.tracking_uri, args.tracking_experiment)
    if not result.run_id:
        raise InputError(f"{args.run} is not in MLflow; `avere-ray track {args.run}` sends it")
    return result


def _pair(result: "RunResult", champion: str | None, uri: str, experiment: str) -> "Pair":
    from avere_ray.comparison.differences import compare, correct
    from avere_ray.comparison.results import BEFORE
    from avere_ray.comparison.tracked import from_selector

    if champion is not None:
        other = from_selector(uri, experiment, champion)
        labels = (f"the champion ({other.name})", result.name)
        return correct([compare(other.last(), result.last(), labels)])[0]
    if BEFORE not in result.evaluations or len(result.evaluations) < 2:
        raise InputError(f"there is no champion yet, and {result.name} was not evaluated before and after training")
    labels = (f"{result.name} before training", f"{result.name} after it")
    return correct([compare(result.evaluations[BEFORE], result.last(), labels)])[0]


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
