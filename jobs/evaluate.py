"""Base, adapter or a remote model to scores on held-out questions.

Without a round it scores the newest adapter of the run, or the base when there is none. evaluation.endpoint names a
remote model to score instead (any server with OpenAI's chat API that takes media; its key comes from the environment):
give it a run_dir of its own. An interrupted evaluation asks for the rest only. Figures and answers go to MLflow.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from avere_ray.backbones import model_digest
from avere_ray.config import JudgeConfig, RunConfig
from avere_ray.evaluation.benchmark import Option, first_answer
from avere_ray.evaluation.kept import Kept
from avere_ray.evaluation.showing import Showing
from avere_ray.progress import reused, say
from avere_ray.protocols import AskFn, ProgressFn
from avere_ray.records import Query
from avere_ray.stages import StageFolder, StageManifest, digest
from jobs.command import run_command
from jobs.exams import Candidate, check_own_model, check_same_model, examine, settings_key
from jobs.layout import newest_adapter, require, stage_path
from jobs.room import check_room
from jobs.session import ray_session
from jobs.workers import Workers


def run(cfg: RunConfig, round_: int | None = None, workers: Workers | None = None) -> StageManifest:
    """Scores the adapter of a round (-1: the base), or returns the manifest of the time it was done.

    Raises:
        ConfigError: a remote model is named where one's own is trained.
        InputError: there are no held-out questions.
        DropBudgetExceeded: more questions than evaluation.drop_budget allows are about a clip that is missing.
    """
    if round_ is None or workers is None:
        with ray_session(cfg.ray), Workers(cfg) as own:
            check_room(cfg, "evaluate")
            return run(cfg, newest_adapter(cfg) if round_ is None else round_, own)
    check_own_model(cfg)
    decoded = require(cfg, "decoded")
    adapter = require(cfg, "adapters", round_) if round_ >= 0 else None
    title = "base" if round_ < 0 else f"round {round_}"
    folder = StageFolder(
        stage_path(cfg, "evals", round_),
        stage="evals",
        config=cfg.to_yaml(),
        key=digest(
            "evals",
            settings_key(cfg),
            decoded.output_digest,
            model_digest(cfg.model.path),
            cfg.model.dtype,
            adapter.output_digest if adapter else "",
        ),
    )
    check_same_model(cfg, folder)
    if (manifest := folder.finished()) is not None:
        reused("evaluation of the base" if round_ < 0 else f"evaluation of {title}", manifest.used, "questions")
        return manifest
    worst = workers.use_adapter(stage_path(cfg, "adapters", round_) if round_ >= 0 else None, round_ + 1)
    candidate = Candidate(
        answerer=LocalModel(workers.pool, round_ + 1),
        title=title,
        clips=workers.clips,
        durations_s=workers.store.durations_s(),
        round_=round_,
        rating_model=workers.rating_model,
    )
    try:
        return examine(
            cfg,
            candidate,
            folder,
            lambda: {
                "parity_max_abs_diff": worst,
                "engines_replaced": workers.pool.take_replaced(),
                "scorers_replaced": workers.scorer.take_replaced(),
            },
        )
    finally:
        workers.end_rating()


def run_remote(cfg: RunConfig) -> StageManifest:
    """Scores the remote model of evaluation.endpoint; nothing is decoded that is not sent, and Ray is not started.

    Raises:
        ConfigError: its key is missing, or the run folder holds the evaluation of another model.
        EndpointError: it refuses or does not answer, or the budget is used up; what it answered is kept.
        InputError, DropBudgetExceeded: see `run`.
    """
    from avere_ray.data import clips_key
    from avere_ray.decoder_child import decode_one
    from avere_ray.endpoint import Endpoint
    from avere_ray.evaluation.remote import RemoteModel
    from jobs import synth
    from jobs.corpus import read_corpus
    from jobs.decode import clips_folder

    remote, media = cfg.evaluation.endpoint, cfg.evaluation.media
    endpoint = Endpoint(remote)
    synth.run(cfg)
    clips, root = read_corpus(cfg, clips_folder(cfg))
    asked = (remote.url, remote.model, media, clips_key(clips, root, cfg.data.decode))
    folder = StageFolder(
        stage_path(cfg, "evals", -1), stage="evals", config=cfg.to_yaml(), key=digest("evals", settings_key(cfg), asked)
    )
    check_same_model(cfg, folder)
    if (manifest := folder.finished()) is not None:
        reused(f"evaluation of {remote.model}", manifest.used, "questions")
        return manifest
    model = RemoteModel(
        endpoint,
        {clip.clip_id: clip for clip in clips},
        root,
        media=media,
        decode=partial(decode_one, spec=cfg.data.decode, remote=cfg.data.remote),
    )
    try:
        candidate = Candidate(answerer=model, title=remote.model, clips=clips, root=root, rating_model=_own_engine)
        return examine(cfg, candidate, folder, lambda: {f"remote_{k}": v for k, v in endpoint.usage.to_json().items()})
    finally:
        used = endpoint.usage
        say(f"{remote.model}: {used.requests} requests, {used.answers} answers, {used.prompt_tokens} prompt and "
            f"{used.completion_tokens} answer tokens, cost {used.cost:.4f} by the stated prices")  # fmt: skip


def _own_engine(judge: JudgeConfig) -> AskFn:
    """A text model in this process, which starts when it is asked."""

    @functools.cache
    def engine() -> AskFn:
        from avere_ray.engine import TextEngine

        say(f"evaluation: starting a vLLM engine on {judge.model_path}, which rates descriptions")
        return TextEngine(judge)

    def ask(prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]) -> None:
        engine()(prompts, schema, done)

    return ask


class LocalModel:
    """The engines of a run with one adapter; an `exam.Answerer`."""

    scores_options = True

    def __init__(self, pool: Any, adapter_version: int) -> None:
        self.pool, self.adapter_version = pool, adapter_version

    def answer(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        *,
        max_tokens: int,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Greedy answers."""

        def keep(at: Sequence[int], found: Any) -> None:
            answered = zip(at, found, strict=True)
            kept.add_answers([r for i, rollouts in answered for r in first_answer(queries[i], rollouts)])

        self.pool(queries, n=1, temperature=0.0, max_tokens=max_tokens, seed=0, showings=showings, keep=keep,
                  progress=progress)  # fmt: skip

    def score_options(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        options: Sequence[Mapping[str, Option]],
        *,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Log-likelihood of every option's words."""

        def keep(at: Sequence[int], found: Any) -> None:
            rows = zip(at, found, strict=True)
            kept.add_logps({queries[i].query_id: dict(zip(options[i], values, strict=True)) for i, values in rows})

        words = [[option.scored for option in row.values()] for row in options]
        self.pool.option_logps(queries, options=words, showings=showings, keep=keep, progress=progress)


def run_alone(cfg: RunConfig) -> StageManifest:
    """What `avere-ray evaluate` does: scores, shows the figures, and sends them to MLflow."""
    from avere_ray.endpoint import Endpoint
    from jobs.scores_table import print_evaluation
    from jobs.tracked import tracked

    remote = bool(cfg.evaluation.endpoint.url)
    round_ = -1 if remote else newest_adapter(cfg)
    if remote:
        Endpoint(cfg.evaluation.endpoint)  # a missing key is told before anything is written
    else:
        require(cfg, "decoded")
    with tracked(cfg) as log:
        work = partial(run_remote, cfg) if remote else partial(run, cfg, round_)
        manifest = log.evaluation(cfg, round_, work)
    print_evaluation(stage_path(cfg, "evals", round_))
    return manifest


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray evaluate", __doc__, run_alone, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
