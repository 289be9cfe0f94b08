"""Puts the benchmarks of a config to a model, and writes what an evaluation leaves behind; knows nothing of Ray.

An evaluation folder is whole by itself, so that runs compare on any machine:

    predictions.parquet            answers            questions.parquet   what was asked
    predictions_<mode>.parquet     in that mode       clips.parquet       about what, with digests
    results.parquet                figures            option_logps.jsonl  likelihoods of options, where scored
    <benchmark>_scores.json        with intervals     <benchmark>_grounding.json   what each mode costs
    <benchmark>_judgements.jsonl   a judge's ratings of descriptions, as `avere-ray score` takes them
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError, InputError
from avere_ray.evaluation import BENCHMARKS
from avere_ray.evaluation.benchmark import Benchmark, score_answers
from avere_ray.evaluation.exam import Answerer, Exam, Sitting
from avere_ray.evaluation.few_shot import chooser, example_clips
from avere_ray.evaluation.grounding import Loss, to_json, to_metrics
from avere_ray.evaluation.ratings import (
    JUDGEMENTS,
    Described,
    RateFn,
    RulesRater,
    TextRater,
    is_rating,
    rater_name,
    rating_key,
)
from avere_ray.evaluation.scorer import ReadOptions, Scores
from avere_ray.evaluation.showing import Example, Showings
from avere_ray.judges.choose import LocalModel, text_model
from avere_ray.judges.llm import CachedModel
from avere_ray.ledger import Ledger
from avere_ray.progress import say, stage_progress
from avere_ray.protocols import ProgressFn
from avere_ray.records import Clip, Drop, EvalResult, Query, Rollout
from avere_ray.stages import CONFIG, StageFolder, StageManifest, digest, file_digest, write_json, write_text
from avere_ray.verdicts import corpus_lexicon
from jobs.layout import stage_path, verdict_path
from jobs.synth import benchmark_path

LIKELIHOODS = "option_logps.jsonl"


@dataclass(kw_only=True)
class Candidate:
    """A model under evaluation, and the clips it may be asked about."""

    answerer: Answerer
    title: str
    """What it is, for the progress display."""
    clips: Sequence[Clip]
    durations_s: Mapping[str, float] = field(default_factory=dict)
    round_: int = -1
    root: Path | None = None
    """Where the clips' files are, when nobody has read them yet."""
    rating_model: LocalModel | None = None
    """Starts an engine on `evaluation.judge.model_path`, which rates descriptions."""


def annotation_path(cfg: RunConfig, name: str) -> Path:
    """The annotations of a benchmark.

    Raises:
        InputError: they do not exist.
    """
    named = {str(benchmark): path for benchmark, path in cfg.evaluation.annotations.items()}
    path = named.get(name, benchmark_path(cfg))
    if not path.exists():
        raise InputError(
            f"there are no held-out questions of {name} at {path}. Set data.benchmark to an EmoReAlM-format JSON file "
            f"about your clips, or evaluation.annotations.{name} to the benchmark's own file."
        )
    return path


def check_own_model(cfg: RunConfig) -> None:
    """Refuses a remote model where one's own is trained.

    Raises:
        ConfigError: evaluation.endpoint names one.
    """
    remote = cfg.evaluation.endpoint
    if remote.url:
        raise ConfigError(
            f"evaluation.endpoint names a remote model ({remote.model}), which cannot be trained; use `avere-ray "
            "evaluate`, or leave it out"
        )


def check_same_model(cfg: RunConfig, folder: StageFolder) -> None:
    """Refuses to put a remote model's evaluation in the place of a run's own, or the other way round.

    Raises:
        ConfigError: the run folder holds the evaluation of another kind of model.
    """
    path = folder.path / CONFIG
    if not path.is_file():
        return
    before = (yaml.safe_load(path.read_text(encoding="utf-8")).get("evaluation") or {}).get("endpoint") or {}
    own = cfg.evaluation.endpoint
    if (before.get("url", ""), before.get("model", "")) != (own.url, own.model):
        other = f"remote model {before['model']}" if before.get("url") else "the run's own model"
        raise ConfigError(
            f"{folder.path} holds the evaluation of {other}, which would be lost; set run_dir to a folder of its own"
        )


def settings_key(cfg: RunConfig) -> str:
    """Digest of the questions and of how they are put; with the model's digest, the key of an evaluation."""
    paths = [annotation_path(cfg, name) for name in cfg.evaluation.benchmarks]
    settings = cfg.evaluation.model_dump(
        include={"benchmarks", "max_tokens", "fold", "channel", "decoding", "likelihoods", "modes", "few_shot"}
    )
    seed = cfg.seed if cfg.evaluation.few_shot else 0
    rated = [cfg.evaluation.description_tokens, *rating_key(cfg.evaluation.judge)] if describes(cfg) else []
    return digest([_path_digest(path) for path in paths], settings, seed, *rated)


def examine(
    cfg: RunConfig, candidate: Candidate, folder: StageFolder, extra: Callable[[], dict[str, Any]]
) -> StageManifest:
    """Asks everything, scores it and finishes the folder; `extra` goes into its summary.

    What an interrupted evaluation was answered is used.

    Raises:
        ConfigError: the key of the judge that rates descriptions is missing.
        InputError: questions, clips or examples cannot be used.
        DropBudgetExceeded: more questions than evaluation.drop_budget allows have no clip or were refused, as they are
            or in one mode.
        StageError: the model or the judge cannot go on; what they answered is kept.
    """
    rate, model = _rater(cfg, candidate) if describes(cfg) else (None, None)
    folder.begin()
    unfinished = stage_path(cfg, "evals") / "unfinished" / folder.key
    ledger = Ledger("evals")
    questions = held_out_questions(cfg, candidate.clips, ledger)
    check_metrics(questions)
    asked = [_one(cfg, BENCHMARKS[name], candidate, questions[name], unfinished, ledger, rate) for name in questions]
    total = sum(len(one.plain.queries) for one in asked)
    loaded = total + sum(drop.reason == "missing_clip" for drop in ledger.drops)
    ledger.check_budget(loaded, cfg.evaluation.drop_budget, "evaluation.drop_budget")
    metrics: dict[str, float] = {}
    for one in asked:
        metrics |= one.result.metrics
    _write_tables(folder, candidate, asked)
    summary = {"metrics": metrics, **extra(), **_rating_cost(model)}
    used = loaded - len(ledger.drops)
    manifest = folder.finish(inputs=loaded, used=used, drops=ledger.drops, summary=summary)
    shutil.rmtree(unfinished, ignore_errors=True)
    with contextlib.suppress(OSError):
        unfinished.parent.rmdir()
    return manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """One benchmark that was asked in every mode."""

    benchmark: Benchmark
    sittings: Sequence[Sitting]
    """As it is, then the modes."""
    result: EvalResult
    losses: Sequence[Loss]
    replies: Mapping[str, str] | None = None
    """What a judge replied about each description; None where the answers are scored as they are."""
    judge: str = ""

    @property
    def plain(self) -> Sitting:
        return self.sittings[0]

    def scores(self) -> Scores:
        """All figures with intervals."""
        texts = {r.query_id: r.text for r in self.plain.answers} if self.replies is None else self.replies
        found = self.benchmark.details(self.plain.queries, texts)
        return replace(found, notes=(*found.notes, f"rated by {self.judge}")) if self.judge else found


def held_out_questions(cfg: RunConfig, clips: Sequence[Clip], ledger: Ledger) -> dict[str, list[Query]]:
    """The questions of each benchmark; those without a clip go to the ledger.

    Raises:
        InputError: questions cannot be used, or those of two benchmarks have the same id, by which answers are kept.
    """
    options = ReadOptions(fold=cfg.evaluation.fold, channel=cfg.evaluation.channel)
    found: dict[str, list[Query]] = {}
    owner: dict[str, str] = {}
    for name in dict.fromkeys(cfg.evaluation.benchmarks):
        found[name], left_out = BENCHMARKS[name].load(annotation_path(cfg, name), clips, options)
        ledger.extend(left_out)
        for query in found[name]:
            if owner.setdefault(query.query_id, name) != name:
                raise InputError(
                    f"{name} and {owner[query.query_id]} both have a sample {query.query_id}; put them into "
                    "evaluation.benchmarks of two runs, each with a run_dir of its own"
                )
    return found


def check_metrics(questions: Mapping[str, Sequence[Query]]) -> None:
    """Refuses benchmarks whose metrics are called the same, before anything is asked.

    Raises:
        InputError: see above.
    """
    owner: dict[str, str] = {}
    for name in questions if len(questions) > 1 else ():
        for metric in BENCHMARKS[name].score(questions[name], {}):
            if (other := owner.setdefault(metric, name)) != name:
                raise InputError(
                    f"{name} and {other} both have a metric {metric}; put them into evaluation.benchmarks of two runs, "
                    "each with a run_dir of its own"
                )


def _one(
    cfg: RunConfig,
    benchmark: Benchmark,
    candidate: Candidate,
    queries: Sequence[Query],
    kept: Path,
    ledger: Ledger,
    rate: RateFn | None,
) -> _Asked:
    """One benchmark: asked in every mode, and scored."""
    held_out = [clip for clip in candidate.clips if clip.clip_id in {query.clip_id for query in queries}]

    @contextlib.contextmanager
    def show(mode: str) -> Iterator[ProgressFn]:
        title = f"evaluate {benchmark.name} ({candidate.title}{', ' * bool(mode)}{mode.replace('_', ' ')})"
        with stage_progress(title, "questions") as progress:
            yield progress

    exam = Exam(
        benchmark,
        queries,
        candidate.answerer,
        cfg.evaluation,
        showings=Showings(held_out, candidate.durations_s),
        examples=_examples(cfg, benchmark, candidate.clips, held_out),
        folder=kept,
        show=show,
    )
    sittings = exam.sittings()
    ledger.extend(_refusals(sittings[0]))
    for sitting in sittings[1:]:
        refused = Ledger(f"evals, {benchmark.name}, {sitting.mode.replace('_', ' ')}")
        refused.extend(_refusals(sitting))
        refused.check_budget(len(sitting.queries), cfg.evaluation.drop_budget, "evaluation.drop_budget")
    version, answers = candidate.round_ + 1, sittings[0].answers
    replies = None
    if benchmark.described and rate is not None:
        replies = _rated(benchmark, candidate, queries, answers, rate)
        answers = [replace(r, text=replies[r.query_id]) for r in answers if r.query_id in replies]
    result = score_answers(benchmark, queries, answers, adapter_version=version, round_=candidate.round_)
    losses = exam.losses(sittings)
    prefix = "" if benchmark.name == "emorealm" else f"{benchmark.name}_"
    result.metrics.update({f"{prefix}{name}": value for name, value in to_metrics(losses).items()})
    judge = "" if replies is None else rater_name(cfg.evaluation.judge)
    return _Asked(benchmark=benchmark, sittings=sittings, result=result, losses=losses, replies=replies, judge=judge)


def describes(cfg: RunConfig) -> bool:
    """Whether a benchmark asks for descriptions, which a judge rates."""
    return any(BENCHMARKS[name].described for name in cfg.evaluation.benchmarks)


def _rater(cfg: RunConfig, candidate: Candidate) -> tuple[RateFn, CachedModel | None]:
    """Who rates descriptions, and the text model that does, if one; its replies are kept over runs."""
    judge = cfg.evaluation.judge
    if judge.backend == "rules":
        return RulesRater(corpus_lexicon(candidate.clips)), None
    model = text_model(judge, cache=verdict_path(cfg), local=candidate.rating_model, readable=is_rating)
    return TextRater(model, rater_name(judge)), model


def _rating_cost(model: CachedModel | None) -> dict[str, float]:
    """What a remote judge was asked and has cost this time, told and for the summary."""
    used = model.usage if model is not None else None
    if used is None:
        return {}
    say(f"judge: {used.requests} requests, {used.prompt_tokens} prompt and {used.completion_tokens} answer tokens, "
        f"cost {used.cost:.4f} by the stated prices")  # fmt: skip
    return {f"judge_{name}": value for name, value in used.to_json().items()}


def _rated(
    benchmark: Benchmark, candidate: Candidate, queries: Sequence[Query], answers: Sequence[Rollout], rate: RateFn
) -> dict[str, str]:
    """Replies by question id about what was described; an empty description is none."""
    clips = {clip.clip_id: clip for clip in candidate.clips}
    references = {query.query_id: query.answer for query in queries}
    described = [Described(sample_id=r.query_id, text=r.text, reference=references[r.query_id], clip=clips[r.clip_id])
                 for r in answers if r.text.strip()]  # fmt: skip
    with stage_progress(f"rate {benchmark.name} ({candidate.title})", "descriptions") as progress:
        return rate(described, progress)


def _examples(
    cfg: RunConfig, benchmark: Benchmark, clips: Sequence[Clip], held_out: Sequence[Clip]
) -> Callable[[Query], tuple[Example, ...]]:
    if not cfg.evaluation.few_shot:
        return lambda query: ()
    pool = benchmark.examples(example_clips(clips, held_out), cfg.seed)
    return chooser(pool, cfg.evaluation.few_shot, cfg.seed)


def _refusals(sitting: Sitting) -> list[Drop]:
    return [
        Drop(sample_id=name, stage="evals", reason="refused", message=why) for name, why in sitting.kept.refused.items()
    ]


def _write_tables(folder: StageFolder, candidate: Candidate, asked: Sequence[_Asked]) -> None:
    folder.write("results", EvalResult, [one.result for one in asked])
    plain = [one.plain for one in asked]
    folder.write("predictions", Rollout, [rollout for sitting in plain for rollout in sitting.answers])
    queries = [query for sitting in plain for query in sitting.queries]
    folder.write("questions", Query, queries)
    about = {query.clip_id for query in queries}
    folder.write("clips", Clip, [_with_digest(c, candidate.root) for c in candidate.clips if c.clip_id in about])
    rows = [{"query_id": name, "logps": logps} for sitting in plain for name, logps in sitting.logps.items()]
    if rows:
        write_text(folder.path / LIKELIHOODS, "".join(json.dumps(row) + "\n" for row in rows))
    for mode in dict.fromkeys(sitting.mode for one in asked for sitting in one.sittings[1:]):
        answers = [r for one in asked for sitting in one.sittings if sitting.mode == mode for r in sitting.answers]
        folder.write(f"predictions_{mode}", Rollout, answers)
    for one in asked:
        write_json(folder.path / f"{one.benchmark.name}_scores.json", one.scores().to_json())
        if one.replies is not None:
            lines = [json.dumps({"id": n, "response": r}, ensure_ascii=False) + "\n" for n, r in one.replies.items()]
            write_text(folder.path / f"{one.benchmark.name}{JUDGEMENTS}", "".join(lines))
        if one.losses:
            write_json(folder.path / f"{one.benchmark.name}_grounding.json", to_json(one.losses))


def _with_digest(clip: Clip, root: Path | None) -> Clip:
    """The clip with the digest of its file, by which a later comparison knows it."""
    file = root / clip.uri if root is not None else None
    if clip.sha256 or file is None or not file.is_file():
        return clip
    return replace(clip, sha256=file_digest(file))


def _path_digest(path: Path) -> str:
    """Digest of a file; of a folder, the digests of its small tables and the names of the rest."""
    if path.is_file():
        return file_digest(path)
    tables = (".csv", ".json", ".jsonl", ".txt")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([(f.name, file_digest(f) if f.suffix in tables else "") for f in files])
