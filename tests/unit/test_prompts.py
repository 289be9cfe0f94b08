"""Question templates: each asks what it says, its answer is right, and its reference would be judged faithful."""

from collections import Counter

import pytest

from avere_ray.evaluation.answers import parse_answer
from avere_ray.fakes import make_rollout
from avere_ray.prompts import (
    EMOTION_ADJECTIVES,
    OPEN_TASKS,
    TASKS,
    all_queries,
    definite,
    is_plural,
    join_phrases,
    shown_emotion,
    training_queries,
)
from avere_ray.records import Clip, VerdictLabel
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.verdicts import judge_by_rules

CLIPS = [clip_of(sample_scene(f"c{i}", "test", 0, bias=0.0, mismatch=0.5), "") for i in range(40)]


@pytest.mark.parametrize(
    ("text", "plural"),
    [("a wide smile", False), ("tears", True), ("hands at the cheeks", True), ("laughter", False), ("a dress", False)],
)
def test_number_of_a_cue_phrase(text, plural):
    assert is_plural(text) is plural


def test_phrases_are_made_definite_and_joined():
    assert definite("a wide smile") == "the wide smile"
    assert definite("clenched fists") == "the clenched fists"
    assert join_phrases(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize("clip", CLIPS[:10], ids=lambda c: c.clip_id)
def test_every_reference_is_faithful_and_gives_the_right_letter(clip):
    for query in all_queries(clip, 0):
        verdict = judge_by_rules(make_rollout(query, 0, query.reference), query, clip)
        assert verdict.label is VerdictLabel.FAITHFUL, (query.prompt, query.reference, verdict.evidence)
        if query.choices:
            assert parse_answer(query.reference, query.choices) == query.answer


def test_stress_questions_are_about_cues_of_their_sub_type():
    for clip in CLIPS:
        cues = {c.name: c for c in clip.cues}
        for query in all_queries(clip, 1):
            if not query.subtype:
                continue
            cue = cues[query.about_cue]
            present, relevant = {"no_hallucination": (True, True), "spurious": (True, False),
                                 "hallucination": (False, True)}[query.subtype]  # fmt: skip
            assert (cue.present, bool(cue.emotions)) == (present, relevant)
            assert cue.modality == query.modality


def test_all_tasks_are_asked_and_ids_are_unique():
    queries = [q for clip in CLIPS for q in all_queries(clip, 0)]
    assert {q.task for q in queries} == {*TASKS, *OPEN_TASKS}
    assert len({q.query_id for q in queries}) == len(queries)


def test_rounds_choose_among_the_same_queries():
    by_id = {q.query_id: q for q in all_queries(CLIPS[0], 0)}
    rounds = [training_queries(CLIPS[0], 3, 0, k) for k in range(4)]
    assert all(by_id[q.query_id] == q for queries in rounds for q in queries)
    assert len({tuple(q.query_id for q in queries) for queries in rounds}) > 1


def test_every_task_is_trained_on_as_often_as_another():
    asked = [q for i in range(600) for q in training_queries(CLIPS[i % 40], 2, i, 0)]
    shares = Counter("open" if q.task in OPEN_TASKS else q.task for q in asked)
    assert all(abs(shares[task] / len(asked) - 1 / 6) < 0.03 for task in (*TASKS, "open"))
    assert len(training_queries(CLIPS[0], 99, 0, 0)) == len(all_queries(CLIPS[0], 0))


def test_an_absent_cue_of_another_emotion_is_asked_about_with_its_own():
    asked = [(c, q) for c in CLIPS for q in all_queries(c, 2) if q.subtype == "hallucination"]
    foreign = 0
    for clip, query in asked:
        cue = next(c for c in clip.cues if c.name == query.about_cue)
        assert EMOTION_ADJECTIVES[cue.emotions[0]] in query.prompt
        foreign += shown_emotion(clip, query.modality) not in cue.emotions
    assert 0.6 < foreign / len(asked) < 0.9


def test_a_clip_without_annotations_gives_no_queries():
    assert all_queries(Clip(clip_id="c", uri="c.mp4"), 0) == []


def test_a_clip_with_one_label_for_both_media_is_asked_about_it_overall():
    clip = Clip(clip_id="a", uri="a.mp4", split="train", identity="p", emotion="anger")
    [query] = training_queries(clip, 3, 0, 0)
    assert (query.task, query.modality, query.reference) == ("describe", "audio_video", "The person is angry.")
    assert training_queries(Clip(clip_id="b", uri="b.mp4", split="train", identity="p"), 3, 0, 0) == []
