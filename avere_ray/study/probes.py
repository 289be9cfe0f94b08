"""What is asked besides the benchmark: which cue of each kind there is (retention), open descriptions, and the
benchmark's own questions without the clip (what their words alone tell).

Perception: direct questions with four choices (`synthetic.questions.perception_queries`). Descriptions: how the person
looks, sounds and feels; the rules judge says whether they are faithful, and which emotion they name. Emotion
recognition is read from the descriptions of face and voice: WAR is the share of right ones, UAR the mean over emotions.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from avere_ray.evaluation.answers import parse_answer
from avere_ray.prompts import OPEN_TASKS, all_queries, shown_emotion
from avere_ray.records import Clip, Query, Verdict, VerdictLabel
from avere_ray.synthetic.questions import perception_queries

PERCEPTION_ALONE = ("perception",)
EVERY_PROBE = (*PERCEPTION_ALONE, "descriptions", "words_alone")
"""What can be asked; the last are the benchmark's questions without the clip."""
PERCEPTION = "perception_"
"""What the tasks of perception queries begin with."""


def probe_queries(clips: Sequence[Clip], seed: int, probes: Sequence[str] = EVERY_PROBE) -> list[Query]:
    """Perception and open queries about held-out clips, as far as `probes` names them."""
    queries: list[Query] = []
    for clip in clips:
        if "perception" in probes:
            queries += perception_queries(clip, random.Random(f"{seed}/probe/{clip.clip_id}"))
        if "descriptions" in probes:
            queries += [query for query in all_queries(clip, seed) if query.task in OPEN_TASKS]
    return queries


def perception_figures(queries: Sequence[Query], answers: Mapping[str, str]) -> dict[str, float]:
    """Accuracy of each kind of cue and their mean, in percent; a missing or unparsable answer is wrong."""
    right: dict[str, list[bool]] = defaultdict(list)
    for query in queries:
        if query.task.startswith(PERCEPTION):
            right[query.task].append(parse_answer(answers.get(query.query_id, ""), query.choices) == query.answer)
    found = {task: _percent(hits) for task, hits in sorted(right.items())}
    return found | {"perception": sum(found.values()) / len(found)} if found else {}


def text_only_figures(queries: Sequence[Query], answers: Mapping[str, str]) -> dict[str, float]:
    """Accuracy over the benchmark's tasks of answers that were given without the clip, in percent; empty without any.

    A missing or unparsable answer is wrong.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for query in queries:
        right[query.task].append(parse_answer(answers.get(query.query_id, ""), query.choices) == query.answer)
    return {"text_only_accuracy": sum(map(_percent, right.values())) / len(right)} if right else {}


def description_figures(
    queries: Sequence[Query], verdicts: Mapping[str, Verdict], clips: Mapping[str, Clip]
) -> dict[str, float]:
    """Shares of descriptions that are faithful, spurious and hallucinated, and emotion recognition, in percent.

    Args:
        verdicts: of the judge, by query id.
    """
    open_queries = [q for q in queries if q.task in OPEN_TASKS]
    if not open_queries:
        return {}
    labels = [verdicts[q.query_id].label for q in open_queries]
    shares = {
        "description_faithful": VerdictLabel.FAITHFUL,
        "description_spurious": VerdictLabel.SPURIOUS_ASSOCIATION,
        "description_hallucination": VerdictLabel.HALLUCINATION,
    }
    found = {name: _percent([label is kind for label in labels]) for name, kind in shares.items()}
    return found | _recognition(open_queries, verdicts, clips)


def length_figures(descriptions: Sequence[str]) -> dict[str, float]:
    """Mean number of words of a description; whether a method is better by saying more or less."""
    return {"description_words": sum(len(x.split()) for x in descriptions) / len(descriptions)} if descriptions else {}


def _recognition(
    queries: Sequence[Query], verdicts: Mapping[str, Verdict], clips: Mapping[str, Clip]
) -> dict[str, float]:
    by_emotion: dict[str, list[bool]] = defaultdict(list)
    for query in queries:
        if query.modality in ("audio", "video"):
            gold = shown_emotion(clips[query.clip_id], query.modality)
            by_emotion[gold].append(verdicts[query.query_id].emotion == gold)
    every = [hit for hits in by_emotion.values() for hit in hits]
    if not every:
        return {}
    recalls = [_percent(hits) for hits in by_emotion.values()]
    return {"emotion_war": _percent(every), "emotion_uar": sum(recalls) / len(recalls)}


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / len(hits)
