"""Decoded clips to preference pairs of one round: rollouts, verdicts, pairs, reference log-probs.

Reads RUN/decoded and the adapter of the round before; writes RUN/rollouts, verdicts, pairs and reference of the round.
With data.pairs.path the pairs are those of the preference data, with data.pairs.source answers they are right answers
to the benchmarks' questions about training clips; then nothing is sampled or judged.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.judges.choose import judge_key
from avere_ray.placement import label_selector
from avere_ray.preferences import build_pairs, seen_pairs, stood_in, summarise, to_write
from avere_ray.progress import reused, stage_progress
from avere_ray.records import PreferencePair, ReferenceLogps, Rollout, Verdict, VerdictLabel
from avere_ray.stages import StageFolder, StageManifest, digest, read_records
from avere_ray.staleness import check_fresh
from jobs import answer_pairs, given_pairs
from jobs.command import run_command
from jobs.layout import next_round, require, stage_path
from jobs.rollouts import read_rollouts, sample_rollouts
from jobs.room import check_room
from jobs.session import ray_session
from jobs.workers import Workers

_SCORED_AT_ONCE = 64
_T = TypeVar("_T")


def run(cfg: RunConfig, round_: int | None = None, workers: Workers | None = None) -> StageManifest:
    """Builds the pairs of a round and scores them under the reference; the next round to do when None is named.

    Raises:
        StageError: an earlier stage is missing, or no pair could be made.
    """
    if round_ is None or workers is None:
        with ray_session(cfg.ray), Workers(cfg) as own:
            check_room(cfg, "build-preferences")
            return run(cfg, next_round(cfg) if round_ is None else round_, own)
    decoded = require(cfg, "decoded")
    if cfg.data.pairs.path is not None:
        made = given_pairs.make_pairs(cfg, decoded)
    elif cfg.data.pairs.source == "answers":
        made = answer_pairs.make_pairs(cfg, decoded, workers.clips)
    else:
        sample_rollouts(cfg, round_, workers)
        judge_rollouts(cfg, round_, workers)
        made = make_pairs(cfg, round_, workers)
    return score_reference(cfg, round_, workers) if cfg.train.reference_source == "precomputed" else made


def judge_rollouts(cfg: RunConfig, round_: int, workers: Workers) -> StageManifest:
    """Labels every rollout of the round."""
    source, decoded = require(cfg, "rollouts", round_), require(cfg, "decoded")
    folder = StageFolder(
        stage_path(cfg, "verdicts", round_),
        stage="verdicts",
        config=cfg.to_yaml(),
        key=digest("verdicts", source.output_digest, decoded.output_digest, *judge_key(cfg.judge)),
    )
    if (manifest := folder.finished()) is not None:
        reused(f"verdicts of round {round_}", manifest.used, "rollouts")
        return manifest
    folder.begin()
    queries, rollouts = read_rollouts(cfg, round_)
    check_fresh(rollouts, version=round_, max_staleness=cfg.rollout.allowed_staleness)
    by_id, clips = {q.query_id: q for q in queries}, {c.clip_id: c for c in workers.clips}
    verdicts: list[Verdict] = []
    with stage_progress(f"judge (round {round_})", "rollouts") as progress:
        for part in _chunks(rollouts, cfg.judge.batch_rollouts):
            asked = {r.query_id: by_id[r.query_id] for r in part}
            shown = {r.clip_id: clips[r.clip_id] for r in part}
            verdicts += workers.judged(part, asked, shown)
            progress(len(verdicts), len(rollouts))
    folder.write("verdicts", Verdict, verdicts)
    labels = {label.value: sum(v.label is label for v in verdicts) for label in VerdictLabel}
    replaced = {"judges_replaced": workers.judges_replaced()}
    return folder.finish(inputs=len(rollouts), used=len(verdicts), summary={"labels": labels, **replaced})


def make_pairs(cfg: RunConfig, round_: int, workers: Workers) -> StageManifest:
    """Turns the judged rollouts of the round into pairs, with a mismatched input for each."""
    source, rules = require(cfg, "verdicts", round_), cfg.preference.model_dump(exclude={"swap_deadline_s"})
    read = [require(cfg, "rollouts", round_).output_digest, require(cfg, "decoded").output_digest]
    one_reject = ["one_reject"] if cfg.data.pairs.one_reject else []
    folder = StageFolder(
        stage_path(cfg, "pairs", round_),
        stage="pairs",
        config=cfg.to_yaml(),
        key=digest("pairs", source.output_digest, *read, rules, cfg.judge.write_rejects, cfg.seed, *one_reject),
    )
    if (manifest := folder.finished()) is not None:
        reused(f"pairs of round {round_}", manifest.used, "queries")
        return manifest
    folder.begin()
    queries, rollouts = read_rollouts(cfg, round_)
    verdicts = read_records(stage_path(cfg, "verdicts", round_) / "verdicts.parquet", Verdict)
    by_query: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        by_query.setdefault(rollout.query_id, []).append(rollout)
    judged, clips = {v.rollout_id: v for v in verdicts}, {c.clip_id: c for c in workers.clips}
    written = None
    if cfg.judge.write_rejects:
        wanted = to_write(queries, by_query, judged, clips, cfg.preference, cfg.seed)
        with stage_progress(f"written rejects (round {round_})", "rejects") as progress:
            written = workers.written(wanted, progress)
    with stage_progress(f"pairs (round {round_})", "queries") as progress:
        swaps = workers.swap.ask("pairs", "swap", queries)
        by_id = {q.query_id: s for q, s in zip(queries, swaps, strict=True)}
        pairs, drops = build_pairs(
            queries,
            by_query,
            judged,
            clips,
            by_id,
            cfg.preference,
            cfg.seed,
            written,
        )
        progress(len(queries), len(queries))
    pairs = seen_pairs(pairs, one_reject=cfg.data.pairs.one_reject)
    if not pairs:
        reasons = sorted({d.reason for d in drops})
        raise StageError(
            f"no preference pair could be made from {len(queries)} queries; reasons: {', '.join(reasons)}."
            " Sample more (rollout.samples), or set preference.written_rejects."
        )
    folder.write("pairs", PreferencePair, pairs)
    left_out = sum(pair.swap is None and by_id[pair.query_id] is not None for pair in pairs)
    others = stood_in(pairs, by_query, judged)
    replaced = {
        "rejects_wrong_emotion": others,
        "swaps_left_out": left_out,
        "swap_actors_replaced": workers.swap.take_replaced(),
    }
    if cfg.judge.write_rejects:
        replaced |= {"judges_replaced": workers.judges_replaced()}
    return folder.finish(
        inputs=len(queries), used=len(pairs), drops=drops, summary={**summarise(pairs, drops), **replaced}
    )


def score_reference(cfg: RunConfig, round_: int, workers: Workers) -> StageManifest:
    """Scores the round's pairs under the frozen reference; pairs that were scored before are looked up."""
    from actors.scoring import score_remotely
    from avere_ray.data import placed, scored_stream
    from avere_ray.reference import check_complete, check_finite, unscored

    source, decoded = require(cfg, "pairs", round_), require(cfg, "decoded")
    weights, adapter = reference_weights(cfg, round_)
    folder = StageFolder(
        stage_path(cfg, "reference", round_),
        stage="reference",
        config=cfg.to_yaml(),
        key=digest("reference", 2, source.output_digest, decoded.output_digest, weights, cfg.model.dtype),
    )
    if (manifest := folder.finished()) is not None:
        reused(f"reference of round {round_}", manifest.used, "pairs")
        return manifest
    folder.begin()
    pairs = read_records(stage_path(cfg, "pairs", round_) / "pairs.parquet", PreferencePair)
    scored = {pair.pair_id: unscored(pair) for pair in pairs}
    limit_s, done = cfg.rollout.scorer_deadline_s, 0

    def rest(scorer: Any) -> Iterator[list[ReferenceLogps]]:
        score = partial(
            score_remotely, scorer=scorer, weights=weights, dtype=cfg.model.dtype, adapter=adapter, limit_s=limit_s
        )
        return scored_stream(pairs[done:], score, batch=_SCORED_AT_ONCE, stall_s=2 * limit_s)

    nodes = label_selector(cfg.placement.rollout)
    with placed(nodes), stage_progress(f"reference (round {round_})", "pairs") as progress:
        for part in workers.scorer.stream("reference", rest):
            scored |= {figures.pair_id: figures for figures in part}
            done += len(part)
            progress(done, len(pairs))
    check_complete(pairs, list(scored.values()))
    check_finite(list(scored.values()))
    folder.write("reference", ReferenceLogps, list(scored.values()))
    replaced = {"scorers_replaced": workers.scorer.take_replaced()}
    return folder.finish(inputs=len(pairs), used=len(scored), summary=replaced)


def reference_weights(cfg: RunConfig, round_: int) -> tuple[str, Path | None]:
    """Digest of the reference policy's weights, and its adapter; None for the base."""
    base = model_digest(cfg.model.path)
    if cfg.train.reference == "base" or round_ == 0:
        return base, None
    before = require(cfg, "adapters", round_ - 1)
    return digest(base, before.output_digest), stage_path(cfg, "adapters", round_ - 1)


def _chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray build-preferences", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
