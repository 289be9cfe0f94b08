"""What can be answered without the clip: rules that read the questions alone, fitted on one world, tried on another."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

import pytest

from avere_ray.records import Query
from avere_ray.synthetic.clips import benchmark_queries
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.synthetic.world import CUE, CUES

BY_TEXT = {kind.text: kind for kind in CUES}


def questions(seed: int) -> list[Query]:
    clips = [clip_of(sample_scene(f"t{i}", "test", seed, bias=0.0, mismatch=0.5), "") for i in range(1500)]
    return list(benchmark_queries(clips, seed))


KNOWN, NEW = questions(0), questions(1)


def blind_accuracy(asked: Callable[[Query], bool], sign: Callable[[Query], Hashable]) -> float:
    """Of the rule that gives each question the answer that was most often right where `sign` was the same."""
    right: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for query in filter(asked, KNOWN):
        right[sign(query)][query.answer] += 1
    tried = [q for q in NEW if asked(q)]
    hits = [right[sign(q)].most_common(1)[:1] == [(q.answer, right[sign(q)][q.answer])] for q in tried]
    return sum(hits) / len(tried)


def about_cue(query: Query) -> Hashable:
    return query.about_cue


def arrangement(query: Query) -> Hashable:
    """Kinds of the options in order, and which of them share an emotion."""
    kinds = [BY_TEXT[choice.split(") ", 1)[1]] for choice in query.choices]
    shared = Counter(kind.emotion for kind in kinds if kind.emotion)
    return tuple((kind.group, shared[kind.emotion]) for kind in kinds)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_whether_a_telling_cue_is_there_cannot_be_told_from_its_name(modality: str) -> None:
    def telling(query: Query) -> bool:
        return query.task == f"reasoning_stress_{modality}" and bool(CUE[query.about_cue].emotion)

    answers = Counter(q.answer for q in NEW if telling(q))
    chance = max(answers.values()) / answers.total()
    assert blind_accuracy(telling, about_cue) < chance + 0.04


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_stress_questions_leave_a_quarter_that_names_cannot_answer(modality: str) -> None:
    assert 0.70 < blind_accuracy(lambda q: q.task == f"reasoning_stress_{modality}", about_cue) < 0.79


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_options_alone_answer_less_than_half_of_the_basic_questions(modality: str) -> None:
    assert blind_accuracy(lambda q: q.task == f"reasoning_basic_{modality}", arrangement) < 0.5


def test_agreement_is_a_coin_toss_without_the_clip() -> None:
    assert blind_accuracy(lambda q: q.task == "modality_agreement", lambda q: q.prompt) < 0.54


@pytest.mark.parametrize("task", sorted({q.task for q in NEW}))
def test_answers_and_letters_are_balanced(task: str) -> None:
    letters = Counter(q.answer for q in NEW if q.task == task)
    choices = len(next(q for q in NEW if q.task == task).choices)
    assert len(letters) == choices
    assert all(abs(count / letters.total() - 1 / choices) < 0.05 for count in letters.values())
