"""The run folders of a study. Each is a run like any other; those of a world share what does not depend on the method.

STUDY/
  search/            the world that learning rate, beta and the SFT term's weight are searched on
  seed=S/            the worlds of the table
  dose=B/            the worlds of the dose-response study, each with the base that was taught its bias
    base/            clips, decoded clips, the base's evaluation, rollouts, verdicts, pairs
    METHOD/          its pairs, adapter and evaluation; in search/ one for each candidate (METHOD,lr=R,beta=B,sft=W)
  model/dose=B/      bases of the dose-response study
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from avere_ray.backbones import model_digest
from avere_ray.comparison.settings import METHOD
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.evaluation.showing import Showing
from avere_ray.judges.choose import judge_key
from avere_ray.learner import TrainJob
from avere_ray.preferences import seen_pairs, study_pairs_key
from avere_ray.progress import reused, say
from avere_ray.records import AdapterManifest, Clip, PreferencePair, Query, Rollout, Verdict
from avere_ray.stages import MANIFEST, StageFolder, StageManifest, digest, read_manifest, read_records
from avere_ray.study import BASE, METHODS
from avere_ray.study.methods import label_of
from avere_ray.study.probes import (
    EVERY_PROBE,
    description_figures,
    length_figures,
    perception_figures,
    probe_queries,
    text_only_figures,
)
from jobs import build_preferences, decode, evaluate, synth, train
from jobs.layout import require, stage_path
from jobs.tracked import tracked
from jobs.workers import Workers

SHARED = "base"
"""Run folder of a world that holds what its methods share."""
_OWN_LOSS = {"form", "label_smoothing", "logps", "sft_weight"}
"""Settings of the loss that are the same for all methods."""


def changed(cfg: RunConfig, **sections: Any) -> RunConfig:
    """The config with other values; a mapping changes the values of a section."""
    values = cfg.model_dump()
    for name, value in sections.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(values)


def world_config(cfg: RunConfig, place: str, *, seed: int, **sections: Any) -> RunConfig:
    """The run of a world's shared part."""
    return changed(
        cfg,
        name=f"{place}-{SHARED}".replace("=", ""),
        run_dir=cfg.run_dir / place / SHARED,
        seed=seed,
        cache={"folder": cfg.cache.folder or cfg.run_dir / "cache"},
        tracking={"uri": cfg.tracking.uri or f"sqlite:///{(cfg.run_dir / 'mlflow.db').absolute()}"},
        data=_pairs(cfg, one_reject=False),
        **sections,
    )


def method_config(world: RunConfig, method: str, settings: Mapping[str, float], folder: str = "") -> RunConfig:
    """The run of a method in a world.

    Args:
        settings: learning_rate, and settings of the loss (beta, sft_weight) that yield to those the method is made of.
    """
    of_loss = {name: value for name, value in settings.items() if name != "learning_rate"}
    kept = {name: value for name, value in world.loss.model_dump().items() if name in _OWN_LOSS}
    data = {"clips": stage_path(world, "clips"), **_pairs(world, one_reject=METHODS[method].one_reject)}
    values = changed(world, train={"learning_rate": settings["learning_rate"]}, data=data).model_dump()
    place = world.run_dir.parent / (folder or method)
    values |= {
        "name": "-".join(place.parts[-2:]).replace("=", "").replace(",", "-"),
        "run_dir": place,
        "loss": {**kept, **of_loss, **METHODS[method].loss},
    }
    return RunConfig.model_validate(values)


def _pairs(cfg: RunConfig, *, one_reject: bool) -> dict[str, Any]:
    return {"pairs": {**cfg.data.pairs.model_dump(), "one_reject": one_reject}}


def prepare(cfg: RunConfig, workers: Workers, probes: Sequence[str]) -> None:
    """Makes what the methods of a world share: clips, the base's evaluation, pairs; and asks the base these probes."""
    with tracked(cfg, {METHOD: label_of(BASE)}) as log:
        log("clips", partial(synth.run, cfg))
        log("decoded", partial(decode.run, cfg))
        log.clips(cfg)
        log.evaluation(cfg, -1, partial(evaluate.run, cfg, -1, workers))
        log.preferences(cfg, 0, partial(build_preferences.run, cfg, 0, workers))
        log.round(cfg, 0)
    probe(cfg, -1, workers, probes)


def train_and_score(
    world: RunConfig, runs: Sequence[tuple[RunConfig, str]], workers: Workers, learners: int, probes: Sequence[str]
) -> None:
    """Trains every run of a prepared world, then scores every one and asks it these probes."""
    for run, _ in runs:
        lay_out(world, run)
    train_side_by_side([run for run, _ in runs], learners)
    for run, method in runs:
        score(run, method, workers)
        probe(run, 0, workers, probes)


def lay_out(world: RunConfig, cfg: RunConfig) -> None:
    """Gives a method's run the world's decoded clips, and the pairs as the method sees them."""
    _copy_decoded(world, cfg)
    source = require(world, "pairs", 0)
    folder = StageFolder(
        stage_path(cfg, "pairs", 0),
        stage="pairs",
        config=cfg.to_yaml(),
        key=study_pairs_key(source.output_digest, one_reject=cfg.data.pairs.one_reject),
    )
    if folder.finished() is None:
        folder.begin()
        pairs = read_records(stage_path(world, "pairs", 0) / "pairs.parquet", PreferencePair)
        folder.write("pairs", PreferencePair, seen_pairs(pairs, one_reject=cfg.data.pairs.one_reject))
        folder.finish(inputs=len(pairs), used=len(pairs))


def _copy_decoded(world: RunConfig, cfg: RunConfig) -> None:
    """The world's decoded clips, unless the run has these very ones; their manifest comes last."""
    from avere_ray.store import is_complete

    source, target = stage_path(world, "decoded"), stage_path(cfg, "decoded")
    have = read_manifest(target)
    if have is None or have.output_digest != require(world, "decoded").output_digest or not is_complete(target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(MANIFEST))
        shutil.copy2(source / MANIFEST, target / MANIFEST)


def train_side_by_side(cfgs: Sequence[RunConfig], learners: int) -> None:
    """Trains every run whose adapter is not of its present settings and inputs, `learners` at a time, each in a process
    of its own that trains one after the other.

    Raises:
        TrainingError, StageError: the first that failed; those that were done are kept.
    """
    todo = [cfg for cfg in cfgs if not train.is_finished(cfg, 0)]
    if not todo:
        return reused("training of all methods", len(cfgs), "runs")
    import ray

    from actors.learner import LearnerActor
    from avere_ray.backbones import load_processor

    load_processor(todo[0].model)  # transformers cannot be imported by two threads at once

    actors = [
        LearnerActor.options(num_cpus=0, runtime_env={"env_vars": _LEARNER_ENV}).remote()
        for _ in range(min(learners, len(todo)))
    ]
    free = list(actors)

    def one(cfg: RunConfig) -> StageManifest:
        actor = free.pop()
        try:
            return train.run(cfg, 0, partial(_fit, actor), f"train {cfg.name}")
        finally:
            free.append(actor)

    say(f"train: {len(todo)} runs, {len(actors)} at a time")
    with ThreadPoolExecutor(len(actors), "train") as threads:
        try:
            for _ in threads.map(one, todo):
                pass
        finally:  # before the threads are waited for, so that an interruption ends at once
            for actor in actors:
                ray.kill(actor)


_LEARNER_ENV = {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


def _fit(actor: Any, cfg: RunConfig, job: TrainJob) -> AdapterManifest:
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError

    limit = cfg.train.deadline_s + 60
    try:
        return AdapterManifest(
            **ray.get(actor.train.remote(cfg.model_dump(mode="json"), job.to_plain()), timeout=limit)
        )
    except GetTimeoutError as error:
        raise StageError(f"the training of {cfg.name} did not end within {limit:g} s (train.deadline_s)") from error
    except RayTaskError as error:
        raise error.as_instanceof_cause() from error


def score(cfg: RunConfig, method: str, workers: Workers) -> None:
    """Evaluates a trained run, and tells MLflow of training and evaluation."""
    with tracked(cfg, {METHOD: label_of(method)}) as log:
        log.training(cfg, 0, partial(train.run, cfg, 0, _no_fit))
        log.evaluation(cfg, 0, partial(evaluate.run, cfg, 0, workers))


def _no_fit(cfg: RunConfig, job: TrainJob) -> AdapterManifest:
    raise StageError(f"{cfg.run_dir} is not trained; run the study again")


def _without_clips(cfg: RunConfig, workers: Workers, clips: list[Clip]) -> dict[str, float]:
    """Asks the benchmark's questions about these clips in words alone."""
    from avere_ray.synthetic.clips import benchmark_queries

    queries = list(benchmark_queries(clips, cfg.seed))
    showings = [Showing(words_only=True)] * len(queries)
    found = workers.pool(queries, n=1, temperature=0.0, max_tokens=cfg.evaluation.max_tokens, seed=0, showings=showings)
    return text_only_figures(queries, {q.query_id: answers[0].text for q, answers in zip(queries, found, strict=True)})


def probe(cfg: RunConfig, round_: int, workers: Workers, probes: Sequence[str] = EVERY_PROBE) -> StageManifest | None:
    """Asks for perception and descriptions of the held-out clips (-1: of the base), has the judge read them, and asks
    the benchmark's questions without the clip; as far as `probes` names them, and nothing (None) where it is empty."""
    if not probes:
        return None
    adapter = require(cfg, "adapters", round_).output_digest if round_ >= 0 else ""
    decoded = require(cfg, "decoded")
    folder = StageFolder(
        stage_path(cfg, "probes", round_),
        stage="probes",
        config=cfg.to_yaml(),
        key=digest(
            "probes",
            decoded.output_digest,
            adapter,
            model_digest(cfg.model.path),
            cfg.model.dtype,
            judge_key(cfg.judge),
            cfg.rollout.max_tokens,
            cfg.seed,
            cfg.study.probe_clips,
            *probes,
        ),
    )
    if (manifest := folder.finished()) is not None:
        reused("probes", manifest.used, "questions")
        return manifest
    folder.begin()
    workers.use_adapter(stage_path(cfg, "adapters", round_) if round_ >= 0 else None, round_ + 1)
    held_out = [clip for clip in workers.clips if clip.split != "train"]
    clips = {clip.clip_id: clip for clip in held_out[: cfg.study.probe_clips]}
    queries = probe_queries(list(clips.values()), cfg.seed, probes)
    found = workers.pool(queries, n=1, temperature=0.0, max_tokens=cfg.rollout.max_tokens, seed=0)
    rollouts = [answers[0] for answers in found]
    open_ones = [r for q, r in zip(queries, rollouts, strict=True) if not q.choices]
    by_id = {q.query_id: q for q in queries}
    verdicts = workers.judged(open_ones, {r.query_id: by_id[r.query_id] for r in open_ones}, clips) if open_ones else []
    judged = {r.query_id: v for r, v in zip(open_ones, verdicts, strict=True)}
    figures = perception_figures(queries, {r.query_id: r.text for r in rollouts})
    figures |= description_figures(queries, judged, clips) | length_figures([r.text for r in open_ones])
    if "words_alone" in probes:
        figures |= _without_clips(cfg, workers, list(clips.values()))
    folder.write("queries", Query, queries)
    folder.write("rollouts", Rollout, rollouts)
    folder.write("verdicts", Verdict, verdicts)
    return folder.finish(inputs=len(queries), used=len(queries), summary={"metrics": figures})
