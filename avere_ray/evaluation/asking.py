"""Benchmarks that are scored from files, as questions a model can be asked: samples and clips in, queries out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from avere_ray.emotions import canonical_emotion
from avere_ray.errors import InputError
from avere_ray.evaluation.benchmark import Answers, Benchmark, Option
from avere_ray.evaluation.emotion_scores import DETAIL_PROMPT, PROMPT, emotion_outcomes
from avere_ray.evaluation.scorer import Item, ReadOptions, Scorer, Scores, number
from avere_ray.evaluation.showing import Example
from avere_ray.evaluation.tables import Outcome
from avere_ray.evaluation.yes_no import LABELS, yes_no_outcomes
from avere_ray.records import Clip, Drop, Modality, Query

MAIN = ("war", "average_accuracy", "overall_accuracy")
"""The figure that stands for a benchmark, whichever it has."""
OutcomeFn = Callable[[Sequence[Item], Mapping[str, str]], list[Outcome]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How the samples of a scorer are asked about."""

    scorer: Scorer
    classes: tuple[str, ...]
    """The possible answers."""
    outcomes: OutcomeFn
    options: Mapping[str, Option]
    prompt: str = ""
    """The question of every sample; empty where each has its own."""


def emotion_benchmark(scorer: Scorer, classes: tuple[str, ...]) -> Benchmark:
    """A benchmark of emotions, asked about with `PROMPT`."""
    options = {name: Option(scored=name, said=name) for name in classes}
    return _benchmark(Manner(scorer=scorer, classes=classes, outcomes=emotion_outcomes, options=options, prompt=PROMPT))


def yes_no_benchmark(scorer: Scorer) -> Benchmark:
    """A benchmark of yes/no questions, each with its own words."""
    options = {name: Option(scored=name.capitalize(), said=name.capitalize()) for name in LABELS}
    return _benchmark(Manner(scorer=scorer, classes=LABELS, outcomes=yes_no_outcomes, options=options))


def description_benchmark(scorer: Scorer) -> Benchmark:
    """A benchmark of described emotions, asked about with `DETAIL_PROMPT`; its answers are rated before they count."""

    def no_outcomes(items: Sequence[Item], responses: Mapping[str, str]) -> list[Outcome]:
        return []

    manner = Manner(scorer=scorer, classes=(), outcomes=no_outcomes, options={}, prompt=DETAIL_PROMPT)
    return replace(_benchmark(manner), described=True)


def _benchmark(manner: Manner) -> Benchmark:
    return Benchmark(
        name=manner.scorer.name,
        load=partial(_load, manner),
        score=partial(_score, manner),
        details=partial(_details, manner),
        outcomes=partial(_outcomes, manner),
        options=lambda query: manner.options,
        examples=partial(_examples, manner),
    )


def _load(
    manner: Manner,
    path: Path,
    clips: Sequence[Clip],
    options: ReadOptions = ReadOptions(),  # noqa: B008
) -> tuple[list[Query], list[Drop]]:
    """Queries of an annotation file, and samples whose clip is not among `clips`.

    Raises:
        InputError: see the scorer's `read`; or no sample has a clip.
    """
    known = ReadOptions(**{name: getattr(options, name) for name in manner.scorer.options})
    items = manner.scorer.read(path, known).items
    by_name = _clips_by_name(clips)
    queries, drops = [], []
    for item in items:
        names = [item.media] if item.media else [item.clip_id, item.sample_id]
        clip = next((by_name[_name(name)] for name in names if _name(name) in by_name), None)
        if clip is None:
            drops.append(_missing(item))
        else:
            queries.append(_query(item, clip, manner.prompt))
    if not queries:
        raise InputError(
            f"none of the {len(items)} samples of {path} is about one of the {len(clips)} clips, for instance "
            f"{drops[0].message}. Check that the clip table covers the benchmark."
        )
    return queries, drops


def _query(item: Item, clip: Clip, prompt: str) -> Query:
    return Query(
        query_id=item.sample_id,
        clip_id=clip.clip_id,
        modality=_modality(item),
        task=item.task,
        prompt=prompt or item.question,
        answer=item.gold,
        subtype=item.subtype,
    )


def _modality(item: Item) -> Modality:
    """AVHBench's tasks end in the medium that a question is about; elsewhere it is taken to be both."""
    if item.task.endswith("_video"):
        return "video"
    return "audio" if item.task.endswith("_audio") else "audio_video"


def _items(queries: Sequence[Query]) -> list[Item]:
    """A clip and its copy with swapped audio (AVHBench's `<clip>_swap`) count as one clip."""
    return [
        Item(
            sample_id=q.query_id,
            gold=q.answer,
            clip_id=cluster_of(q.clip_id),
            task=q.task,
            subtype=q.subtype,
        )
        for q in queries
    ]


def _given(answers: Answers) -> dict[str, str]:
    return {name: text for name, text in answers.items() if text is not None}


def _details(manner: Manner, queries: Sequence[Query], answers: Answers) -> Scores:
    return replace(manner.scorer.score(_items(queries), _given(answers)), benchmark=manner.scorer.name)


def _score(manner: Manner, queries: Sequence[Query], answers: Answers) -> dict[str, float]:
    """Figures by name after the benchmark's, so that several benchmarks do not meet; `<name>_overall_accuracy` is the
    one that stands for it, where there are accuracies."""
    scores, name = _details(manner, queries, answers), manner.scorer.name
    found = {key: figure.value for key, figure in scores.figures.items() if number(figure.value) is not None}
    found |= {"n": float(scores.n), "missing": float(len(scores.missing)), "unparsable": float(len(scores.unparsable))}
    main = {f"{name}_overall_accuracy": found[key] for key in reversed(MAIN) if key in found}
    return {f"{name}_{key}": value for key, value in found.items()} | main


def _outcomes(manner: Manner, queries: Sequence[Query], answers: Answers) -> list[Outcome]:
    return manner.outcomes(_items(queries), _given(answers))


def _examples(manner: Manner, clips: Sequence[Clip], seed: int) -> dict[str, list[Example]]:
    """Clips with their emotion; questions with words of their own have none."""
    found: dict[str, list[Example]] = {}
    for clip in clips:
        emotion = canonical_emotion(clip.emotion) if clip.emotion else ""
        if manner.prompt and emotion in manner.classes:
            query = Query(query_id=f"example/{clip.clip_id}", clip_id=clip.clip_id, modality="audio_video",
                          task=manner.scorer.name, prompt=manner.prompt, answer=emotion)  # fmt: skip
            found.setdefault(query.task, []).append(Example(query=query, answer=emotion))
    return found


def _clips_by_name(clips: Sequence[Clip]) -> dict[str, Clip]:
    """By id, and by every tail of the path without its ending: "a/b/1", "b/1", "1"; ambiguous names are left out."""
    table: dict[str, Clip | None] = {}
    for clip in clips:
        parts = PurePosixPath(_name(clip.uri)).parts
        for name in {clip.clip_id, *("/".join(parts[start:]) for start in range(len(parts)))}:
            table[name] = clip if name not in table else None
    return {name: clip for name, clip in table.items() if clip is not None}


def cluster_of(clip: str) -> str:
    """What a clip (by id or path) and its copy with swapped audio have in common: AVHBench calls the copy
    `<clip>_swap`, before the ending of the file."""
    return _name(clip).removesuffix("_swap")


def _name(path: str) -> str:
    """A path without the ending of a media file."""
    for ending in (".mp4", ".avi", ".mov", ".mkv", ".webm", ".wav"):
        if path.lower().endswith(ending):
            return path[: -len(ending)]
    return path


def _missing(item: Item) -> Drop:
    return Drop(
        sample_id=item.sample_id,
        stage="evaluation",
        reason="missing_clip",
        message=f"sample {item.sample_id}: its clip is not in the clip table",
    )
