"""Rollouts of one round: which queries, which policy answers them, and what is kept when the run is interrupted.

Reads RUN/decoded and the adapter of the round before; writes RUN/rollouts of the round. Answers are noted in
RUN/rollouts/unfinished as their batches come, under a key of everything they depend on, and the next run asks for the
rest only: seeds belong to the queries.
"""

from collections.abc import Iterable, Sequence, Sized
from typing import Any

from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.progress import reused, say, stage_progress
from avere_ray.records import Query, Rollout
from avere_ray.sampled import Sampled
from avere_ray.stages import StageFolder, StageManifest, digest, file_digest, read_drops, read_records
from jobs import given_queries
from jobs.layout import require, stage_path
from jobs.workers import Workers, sample_queries

STAGE = "rollouts"


def sample_rollouts(cfg: RunConfig, round_: int, workers: Workers) -> StageManifest:
    """Samples responses to the round's queries with the adapter of the round before; with rollout.overlap with the one
    before that."""
    folder = rollouts_folder(cfg, round_)
    if (manifest := folder.finished()) is not None:
        if round_ not in workers.sampled:
            reused(f"rollouts of round {round_}", manifest.used, "queries")
        return manifest
    folder.begin()
    queries = round_queries(cfg, round_, workers)
    worst = use_policy(cfg, round_, workers)
    sampled = sampled_so_far(cfg, round_, require(cfg, "decoded").key)
    found = sample(cfg, round_, workers, queries, sampled)
    return finish_rollouts(cfg, folder, workers, queries, found, sampled, worst)


def policy_round(cfg: RunConfig, round_: int) -> int:
    """The round whose adapter a round's rollouts are sampled from; -1 is the base."""
    return max(round_ - 1 - cfg.rollout.overlap, -1)


def use_policy(cfg: RunConfig, round_: int, workers: Workers) -> float:
    """Switches the engines to the policy of a round's rollouts; returns what the parity gate found."""
    before = policy_round(cfg, round_)
    return workers.use_adapter(stage_path(cfg, "adapters", before) if before >= 0 else None, before + 1)


def rollouts_folder(cfg: RunConfig, round_: int) -> StageFolder:
    """The folder of a round's rollouts; the stages before it have finished.

    Raises:
        StageError: one has not.
    """
    return StageFolder(
        stage_path(cfg, STAGE, round_),
        stage=STAGE,
        config=cfg.to_yaml(),
        key=digest(STAGE, require(cfg, "decoded").output_digest, *_conditions(cfg, round_)),
    )


def sampled_so_far(cfg: RunConfig, round_: int, decoded_key: str) -> Sampled:
    """What an interrupted run left of a round's rollouts, and where this one notes its own.

    `decoded_key`: key of the decode stage, which may not have finished.

    Raises:
        StageError: the adapter to sample with is not there.
        StorageError: what was left cannot be read.
    """
    name = digest("sampled", decoded_key, *_conditions(cfg, round_))
    return Sampled(stage_path(cfg, STAGE) / "unfinished" / f"{name}.jsonl")


def _conditions(cfg: RunConfig, round_: int) -> list[Any]:
    """What a round's rollouts depend on besides the clips."""
    sampler = policy_round(cfg, round_)
    before = require(cfg, "adapters", sampler) if sampler >= 0 else None
    ahead = [] if sampler == round_ - 1 else ["overlap"]
    rules = cfg.rollout.model_dump(include={"queries_per_clip", "samples", "temperature", "top_p", "max_tokens"})
    return [
        before.output_digest if before else "",
        model_digest(cfg.model.path),
        cfg.model.dtype,
        rules,
        cfg.seed,
        round_,
        file_digest(cfg.data.queries) if cfg.data.queries else "",
        *ahead,
    ]


def sample(
    cfg: RunConfig,
    round_: int,
    workers: Workers,
    queries: Iterable[Query],
    sampled: Sampled,
    *,
    live: bool = True,
    expected: int | None = None,
) -> list[list[Rollout]]:
    """Responses to queries, with the adapter that the engines have; those of `sampled` are taken from there.

    `live` False beside another stage; `expected`: how many queries there will be at most, where they come one by one.
    """
    total = len(queries) if isinstance(queries, Sized) else expected
    if sampled.before:
        say(f"rollouts (round {round_}): {sampled.before} queries were answered before the run was interrupted")
    workers.pool.count_anew()
    with stage_progress(f"rollouts (round {round_})", "queries", live=live) as progress:
        found = workers.pool(
            sampled.rest(queries),
            n=cfg.rollout.samples,
            temperature=cfg.rollout.temperature,
            max_tokens=cfg.rollout.max_tokens,
            seed=cfg.seed + round_,
            progress=lambda done, _: progress(sampled.before + done, total),
            keep=lambda _, groups: sampled.note(groups),
        )
    return sampled.merged(found)


def finish_rollouts(
    cfg: RunConfig,
    folder: StageFolder,
    workers: Workers,
    queries: Sequence[Query],
    found: Sequence[Sequence[Rollout]],
    sampled: Sampled,
    worst: float,
) -> StageManifest:
    """Writes a round's queries and rollouts, and drops for given queries that could not be asked.

    `worst`: what the parity gate found.
    """
    rollouts = [r for group in found for r in group]
    folder.write("queries", Query, queries)
    folder.write("rollouts", Rollout, rollouts)
    drops = given_queries.left_out(cfg, queries, workers.clips) if cfg.data.queries else []
    manifest = folder.finish(
        inputs=len(queries) + len(drops),
        used=len(queries),
        drops=drops,
        summary={
            "rollouts": len(rollouts),
            "queries_answered_before": sampled.before,
            "parity_max_abs_diff": worst,
            **workers.pool.figures(),
            "scorers_replaced": workers.scorer.take_replaced(),
        },
    )
    sampled.remove()
    return manifest


def round_queries(cfg: RunConfig, round_: int, workers: Workers) -> list[Query]:
    """The round's queries: those of data.queries, or as many per clip as rollout.queries_per_clip from its cues.

    Raises:
        InputError: there is no training clip, or no query can be asked about any.
        DropBudgetExceeded: too many of data.queries are about clips that are not in the corpus.
    """
    clips = workers.training_clips
    if cfg.data.queries is not None:
        listed, known = given_queries.read(cfg.data.queries), {c.clip_id for c in clips}
        lost = [drop.sample_id for drop in read_drops(stage_path(cfg, "decoded"))]
        given_queries.check_known(cfg, listed, [*(c.clip_id for c in workers.clips), *lost])
        queries = [q for q in listed if q.clip_id in known]
    else:
        queries = sample_queries(clips, cfg, round_)
    check_queries(cfg, queries, len(clips))
    return queries


def check_queries(cfg: RunConfig, queries: Sequence[Query], clips: int) -> None:
    """Refuses a round without questions; `clips` is the number of training clips.

    Raises:
        InputError: there are none.
    """
    if not clips:
        raise InputError('no clip belongs to the split "train"; mark some in the clip table')
    if not queries and cfg.data.queries is not None:
        raise InputError(
            f"none of the queries of {cfg.data.queries} (data.queries) is about one of the {clips} training clips. "
            'Their clip_id must be that of a clip of the split "train".'
        )
    if not queries:
        raise InputError(
            f"no query can be asked about the {clips} training clips: their clip table has neither cues nor emotions "
            "that questions are made of. Annotate them, or give data.queries."
        )


def read_rollouts(cfg: RunConfig, round_: int) -> tuple[list[Query], list[Rollout]]:
    """Queries and rollouts of a round."""
    path = stage_path(cfg, "rollouts", round_)
    return read_records(path / "queries.parquet", Query), read_records(path / "rollouts.parquet", Rollout)
