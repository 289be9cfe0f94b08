"""EmoReAlM: audio-visual emotion reasoning, basic and under stress, and agreement of face and voice.

Data: Chaubey et al., arXiv 2602.07054, section 3; 4,000 questions about 2,649 DFEW clips (Hugging Face
chaubeyG/EmoReAlM; the clips need the DFEW licence). The matched benchmark of the synthetic world has the same format.

Tasks: reasoning_basic_audio, reasoning_basic_video (four choices), modality_agreement, reasoning_stress_audio,
reasoning_stress_video (Yes or No). File: a JSON list of {"id", "video", "task", "question", "choices", "answer"}, and
here optionally "subtype" ("spurious", "hallucination", "no_hallucination"), "about_cue" and "modality".

Prompt: the question, a space, the choices joined by spaces (`evaluate_emorealm.py`). Metrics: `<task>_<metric>` (see
`choices`), `<task>_<subtype>_accuracy`, the pooled `<subtype>_accuracy`, and `average_accuracy`, the unweighted mean
of the tasks' accuracies, which is the leaderboard's figure. Unlike the released scorer, missing answers count as wrong
and a question whose clip is missing is reported. A prediction is called `<id>.txt`. Released rules: see `released`.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from avere_ray.errors import InputError
from avere_ray.evaluation.benchmark import Answers, Benchmark, Option
from avere_ray.evaluation.choices import choice_outcomes, flat_metrics, score_choices, score_choices_released
from avere_ray.evaluation.few_shot import cue_examples
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Scorer, Scores, unique
from avere_ray.evaluation.tables import Outcome
from avere_ray.prompts import TASKS
from avere_ray.records import Clip, Drop, Modality, Query
from avere_ray.responses import is_yes_no, split_choice

SUBTYPES = ("spurious", "hallucination", "no_hallucination")
_REQUIRED = ("id", "video", "task", "question", "choices", "answer")
_MODALITIES: dict[str, Modality] = {"audio": "audio", "video": "video", "agreement": "audio_video"}


def load(
    path: Path,
    clips: Sequence[Clip],
    options: ReadOptions = ReadOptions(),  # noqa: B008
) -> tuple[list[Query], list[Drop]]:
    """Questions of an EmoReAlM file in file order, each with the id of its clip.

    A clip is found by its `video` path: the clip whose uri is that path or ends with it. A question whose clip is not
    among `clips` becomes a Drop with the reason "missing_clip".

    Raises:
        InputError: the file is missing, is not a list of such questions, an id occurs twice, a path fits two clips, or
            no question has a clip.
    """
    items = _read(path)
    by_path = _clips_by_path(clips)
    queries: list[Query] = []
    drops: list[Drop] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        where = f"{path}, item {index}"
        _check(item, where)
        if str(item["id"]) in seen:
            raise InputError(f"{where}: id {item['id']!r} occurs twice; ids name the predictions and must be unique")
        seen.add(str(item["id"]))
        clip_id = _clip_id(item["video"], by_path, where)
        if clip_id is None:
            drops.append(_missing(item))
        else:
            queries.append(_query(item, clip_id))
    if not queries:
        raise InputError(
            f"none of the {len(items)} questions of {path} is about one of the {len(clips)} clips, for instance "
            f"{drops[0].message if drops else 'the file is empty'}. Check that the clip table covers the benchmark."
        )
    return queries, drops


def score(queries: Sequence[Query], answers: Answers) -> dict[str, float]:
    """Metrics of responses by query id, without intervals; see the module docstring."""
    items = _items(queries)
    return flat_metrics(items, answers, score_choices("emorealm", items, answers, intervals=False))


def details(queries: Sequence[Query], answers: Answers) -> Scores:
    """Figures of responses by query id, each with n and a 95 % interval over clips."""
    return score_choices("emorealm", _items(queries), answers)


def read(path: Path, options: ReadOptions) -> Annotations:
    """Questions of an EmoReAlM file, whatever clips are there.

    Raises:
        InputError: see `load`.
    """
    return Annotations(items=unique([_item(item, f"{path}, item {i}") for i, item in enumerate(_read(path))], path))


def outcomes(queries: Sequence[Query], answers: Answers) -> list[Outcome]:
    """What each answer says."""
    return choice_outcomes(_items(queries), answers)


def options(query: Query) -> dict[str, Option]:
    """The choices by letter; what is scored is the letter in brackets, so that long choices are not at a loss."""
    letters = dict(split_choice(choice) for choice in query.choices)
    return {name: Option(scored=f"({name})", said=f"({name}) {text}") for name, text in letters.items()}


EMOREALM = Benchmark(
    name="emorealm",
    load=load,
    score=score,
    details=details,
    outcomes=outcomes,
    options=options,
    examples=cue_examples,
)
EMOREALM_SCORER = Scorer(
    name="emorealm",
    read=read,
    score=partial(score_choices, "emorealm"),
    legacy=partial(score_choices_released, "emorealm", TASKS[2:]),
)


def _items(queries: Sequence[Query]) -> list[Item]:
    return [
        Item(sample_id=q.query_id, gold=q.answer, clip_id=q.clip_id, task=q.task, subtype=q.subtype, choices=q.choices)
        for q in queries
    ]


def _item(item: Any, where: str) -> Item:
    _check(item, where)
    query = _query(item, str(item["video"]))
    return Item(
        sample_id=query.query_id,
        gold=query.answer,
        clip_id=query.clip_id,
        task=query.task,
        subtype=query.subtype,
        choices=query.choices,
    )


def _read(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(f"benchmark file {path} does not exist; an EmoReAlM-format JSON file is needed")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(items, list):
        raise InputError(f"{path} holds a {type(items).__name__}; an EmoReAlM file is a list of questions")
    return items


def _check(item: Any, where: str) -> None:
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is a {type(item).__name__}, not a question")
    missing = [key for key in _REQUIRED if key not in item]
    if missing:
        raise InputError(f"{where} (id {item.get('id')!r}) has no {', '.join(missing)}")
    if item["task"] not in TASKS:
        raise InputError(f"{where}: unknown task {item['task']!r}; EmoReAlM's are {', '.join(TASKS)}")
    if not isinstance(item["choices"], list) or not all(isinstance(c, str) for c in item["choices"]):
        raise InputError(f"{where}: choices {item['choices']!r} are not a list of texts")
    _check_values(item, where)


def _check_values(item: Mapping[str, Any], where: str) -> None:
    options = dict(split_choice(choice) for choice in item["choices"])
    if _letter(item["answer"]) not in options:
        raise InputError(f"{where}: answer {item['answer']!r} is none of the letters {', '.join(options)}")
    if not item["task"].startswith("reasoning_basic") and not is_yes_no(options.values()):
        raise InputError(f"{where}: {item['task']} asks for Yes or No, but its choices are {item['choices']}")
    if item.get("subtype", "") not in ("", *SUBTYPES):
        raise InputError(f"{where}: unknown subtype {item['subtype']!r}; known are {', '.join(SUBTYPES)}")
    if item.get("modality", "audio") not in ("audio", "video", "audio_video"):
        raise InputError(f"{where}: unknown modality {item['modality']!r}; known are audio, video, audio_video")


def _letter(answer: object) -> str:
    return str(answer).strip(" ().").upper()


def _clips_by_path(clips: Sequence[Clip]) -> dict[str, set[str]]:
    """Clip ids by every tail of their uri: "a/b/1.mp4", "b/1.mp4", "1.mp4"."""
    table: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        parts = PurePosixPath(clip.uri).parts
        for start in range(len(parts)):
            table["/".join(parts[start:])].add(clip.clip_id)
    return table


def _clip_id(video: object, by_path: Mapping[str, set[str]], where: str) -> str | None:
    found = sorted(by_path.get("/".join(PurePosixPath(str(video)).parts), ()))
    if len(found) > 1:
        raise InputError(f"{where}: video {video!r} fits the clips {', '.join(found[:3])}; give more of its path")
    return found[0] if found else None


def _missing(item: Mapping[str, Any]) -> Drop:
    return Drop(
        sample_id=str(item["id"]),
        stage="evaluation",
        reason="missing_clip",
        message=f"question {item['id']}: its video {item['video']} is not in the clip table",
    )


def _query(item: Mapping[str, Any], clip_id: str) -> Query:
    modality = item.get("modality") or _MODALITIES[item["task"].rsplit("_", 1)[1]]
    return Query(
        query_id=str(item["id"]),
        clip_id=clip_id,
        modality=modality,
        task=item["task"],
        prompt=" ".join([item["question"], *item["choices"]]),
        choices=tuple(item["choices"]),
        answer=_letter(item["answer"]),
        subtype=item.get("subtype", ""),
        about_cue=item.get("about_cue", ""),
    )
