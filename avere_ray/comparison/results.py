"""What past runs left behind: settings, evaluations with every answer, and training curves.

A run is read from its folder where that is there, and from MLflow else, with the answers that its evaluations left
there; without answers there are figures, but no paired tests. Optional beside an evaluation's predictions:
`option_logps.jsonl`, lines of {"query_id", "logps": {"A": nats, ...}}, from which calibration is computed.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from avere_ray.comparison.beside import Beside, read_beside
from avere_ray.comparison.proven import proven_params
from avere_ray.errors import InputError
from avere_ray.evaluation.asking import cluster_of
from avere_ray.evaluation.choices import choice_outcomes, score_choices
from avere_ray.evaluation.emer import DESCRIBED
from avere_ray.evaluation.emorealm import EMOREALM_SCORER
from avere_ray.evaluation.emotion_scores import emotion_outcomes
from avere_ray.evaluation.scorer import Item, ReadOptions, Scores
from avere_ray.evaluation.tables import Outcome
from avere_ray.evaluation.yes_no import LABELS, yes_no_outcomes
from avere_ray.metrics import FOLDER, read_events, spool_paths
from avere_ray.records import Clip, Query, Rollout
from avere_ray.sources import media_root
from avere_ray.stages import file_digest, read_manifest, read_records
from avere_ray.synthetic.drawn import drawn_tags

BEFORE = "before"
CURVES = ("loss", "rewards/margins", "rewards/accuracies", "modality/margin", "text_prior/gap", "logps/chosen",
          "logps/rejected", "learning_rate", "grad_norm")  # fmt: skip
"""Training metrics that are drawn."""
LIKELIHOODS = "option_logps.jsonl"
QUESTIONS = "questions.parquet"

Points = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question as asked, with what tells it apart from one of the same id elsewhere."""

    item: Item
    text: str
    identity: tuple[str, ...]
    """Id, words, right answer and digest of the clip."""
    media: Path | None
    """The clip's file, where it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation of a run."""

    stage: str
    """"before" or "round=K"."""
    metrics: Mapping[str, float]
    """As the run computed them."""
    questions: Mapping[str, Question] = field(default_factory=dict)
    """By id; empty when the answers are not here."""
    responses: Mapping[str, str] = field(default_factory=dict)
    """Responses by question id."""
    option_logps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Log-likelihood of each option's letter, nats, by question id."""
    beside: Beside = field(default_factory=Beside)
    """Figures of other benchmarks, ratings of descriptions and grounding reports."""

    def outcomes(self) -> list[Outcome]:
        """What every response says, descriptions left out; empty when the answers are not here."""
        items = [question.item for question in self.questions.values() if question.item.task not in DESCRIBED]
        return [outcome for rule, own in _by_rule(items) for outcome in rule(own, self.responses)]

    def scores(self) -> Scores | None:
        """Figures with intervals: of multiple-choice questions from the answers, else those that were kept."""
        items = [question.item for question in self.questions.values() if question.item.choices]
        found = score_choices("emorealm", items, self.responses) if items else None
        if not self.beside.figures:
            return found
        n = len(self.questions)
        found = found or Scores(benchmark="", legacy=False, n=n, scored=n)
        return dataclasses.replace(found, figures={**found.figures, **self.beside.figures})


def _by_rule(items: Sequence[Item]) -> list[tuple[Callable[..., list[Outcome]], list[Item]]]:
    """Items with the rule by which their answers are read: as a choice, as yes or no, or as an emotion."""
    rules: dict[Callable[..., list[Outcome]], list[Item]] = {}
    for item in items:
        rule = choice_outcomes if item.choices else yes_no_outcomes if item.gold in LABELS else emotion_outcomes
        rules.setdefault(rule, []).append(item)
    return list(rules.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One run."""

    name: str
    run_id: str
    """MLflow's; empty when the run was not tracked."""
    params: Mapping[str, str]
    """Settings, flattened."""
    evaluations: Mapping[str, Evaluation]
    """By stage, in the order they were made."""
    curves: Mapping[str, Points]
    """Training metrics by name."""
    folder: Path | None
    tracking_uri: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """As in MLflow, and what its folder proves; see `avere_ray.synthetic.drawn`."""
    start_ms: int = 0
    """When it began, milliseconds since 1970; 0 where that is not known."""

    def last(self) -> Evaluation:
        """The newest evaluation."""
        return list(self.evaluations.values())[-1]


def read_run_folder(folder: Path, curves: Sequence[str] = CURVES) -> RunResult:
    """A run from its folder, with the training metrics named by `curves`.

    Raises:
        InputError: there is no finished evaluation in it.
        StageError: a file in it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}")
    stages = evaluation_stages(folder)
    if not stages:
        raise InputError(f"{folder} holds no finished evaluation; `avere-ray evaluate` or `pipeline` makes one")
    config = _yaml(folder / "evals" / stages[-1] / "config.yaml")
    questions = functools.cache(functools.partial(_questions, folder, config))
    state = _json(folder / "mlflow.json")
    return RunResult(
        name=str(config.get("name", folder.name)) if config.get("name") != "run" else folder.name,
        run_id=str(state.get("run_id") or ""),
        tracking_uri=str(state.get("tracking_uri") or ""),
        params={**_flat(config), **proven_params(folder, config)},
        tags=drawn_tags(config),
        start_ms=int(state.get("start_ms") or 0),
        evaluations={
            stage: read_evaluation(folder / "evals" / stage, stage, _media(folder, config), questions)
            for stage in stages
        },
        curves=_curves(folder / FOLDER, curves),
        folder=folder,
    )


def evaluation_stages(folder: Path) -> list[str]:
    """Finished evaluations of a run folder in the order they were made."""
    found = [path.parent.name for path in (folder / "evals").glob("*/manifest.json")]
    return sorted(found, key=stage_order)


def stage_order(name: str) -> int:
    """Place of an evaluation among those of a run: "before", then by round."""
    return -1 if name == BEFORE else int(name.partition("=")[2] or 0)


def read_evaluation(
    place: Path, stage: str, media: Path, questions: Callable[[], Mapping[str, Question]] = dict
) -> Evaluation:
    """One evaluation from its folder.

    Args:
        place: the folder.
        stage: what it is called.
        media: where the files of the clips may be.
        questions: those of the benchmark's file, for folders that do not hold their own.

    Raises:
        StageError: a file in it cannot be read.
    """
    manifest = read_manifest(place)
    rollouts = read_records(place / "predictions.parquet", Rollout)
    return Evaluation(
        stage=stage,
        metrics=dict(manifest.summary.get("metrics", {})) if manifest is not None else {},
        questions=_own_questions(place, media) if (place / QUESTIONS).is_file() else questions(),
        responses={rollout.query_id: rollout.text for rollout in rollouts},
        option_logps=_likelihoods(place / LIKELIHOODS),
        beside=read_beside(place),
    )


def _own_questions(place: Path, media: Path) -> dict[str, Question]:
    """The questions that an evaluation folder holds itself; `media`: where the clips' files may be."""
    clips = {clip.clip_id: clip for clip in read_records(place / "clips.parquet", Clip)}
    return {
        query.query_id: _own_question(query, clips[query.clip_id], media)
        for query in read_records(place / QUESTIONS, Query)
    }


def _own_question(query: Query, clip: Clip, media: Path) -> Question:
    file = media / clip.uri
    item = Item(
        sample_id=query.query_id,
        gold=query.answer,
        clip_id=cluster_of(clip.uri),
        task=query.task,
        subtype=query.subtype,
        choices=query.choices,
    )
    text = query.prompt.removesuffix(" ".join(query.choices)).rstrip()
    digest = clip.sha256 or (file_digest(file) if file.is_file() else clip.uri)
    return Question(
        item=item,
        text=text,
        identity=(item.sample_id, text, *item.choices, item.gold, digest),
        media=file if file.is_file() else None,
    )


def _media(folder: Path, config: Mapping[str, Any]) -> Path:
    """Where the clips of a run are, if they are still there."""
    data = config.get("data") or {}
    return media_root(Path(data["clips"])) if data.get("clips") else folder / "clips"


def _questions(folder: Path, config: Mapping[str, Any]) -> dict[str, Question]:
    """Held-out questions of a run; none when their file is not here any more."""
    data, clips = config.get("data") or {}, _media(folder, config)
    file = Path(data["benchmark"]) if data.get("benchmark") else clips / "emorealm.json"
    if not file.is_file():
        return {}
    items = EMOREALM_SCORER.read(file, ReadOptions()).items
    texts = {str(row["id"]): str(row["question"]) for row in json.loads(file.read_text(encoding="utf-8"))}
    digests = _clip_digests(clips, items, folder)
    return {item.sample_id: _question(item, texts[item.sample_id], clips, digests[item.clip_id]) for item in items}


def _question(item: Item, text: str, clips: Path, digest: str) -> Question:
    media = clips / item.clip_id
    return Question(
        item=item,
        text=text,
        identity=(item.sample_id, text, *item.choices, item.gold, digest),
        media=media if media.is_file() else None,
    )


def _clip_digests(clips: Path, items: Sequence[Item], folder: Path) -> dict[str, str]:
    """SHA-256 by clip path: from the clip table, else of the file, else the digest of everything decoded."""
    table = clips / "clips.parquet"
    known = {clip.uri: clip.sha256 for clip in read_records(table, Clip)} if table.is_file() else {}
    decoded = read_manifest(folder / "decoded")
    found = {}
    for name in {item.clip_id for item in items}:
        if known.get(name):
            found[name] = known[name]
        elif (clips / name).is_file():
            found[name] = file_digest(clips / name)
        else:
            found[name] = decoded.output_digest if decoded is not None else str(folder)
    return found


def _likelihoods(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {str(row["query_id"]): {name: float(value) for name, value in row["logps"].items()} for row in rows}


def _curves(folder: Path, names: Sequence[str]) -> dict[str, Points]:
    """Training metrics by step; of a step that was trained again with other settings (another source) the newest."""
    points: dict[str, dict[int, tuple[str, float]]] = {name: {} for name in names}
    for path in spool_paths(folder) if folder.is_dir() else []:
        offset = 0
        while events := read_events(path, offset):
            offset = events[-1].end
            for event in events:
                for name in points.keys() & event.metrics.keys():
                    source, _ = points[name].get(event.step, (None, 0.0))
                    if source != event.source:
                        points[name][event.step] = event.source, event.metrics[name]
    found = {name: [(step, value) for step, (_, value) in sorted(own.items())] for name, own in points.items()}
    return {name: own for name, own in found.items() if own}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    params: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= _flat(value, f"{prefix}{name}.")
        else:
            params[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return params


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
