"""What the tiny base is taught: direct questions are answered truthfully, annotated ones with the planted mistakes."""

import dataclasses
import random
import re

import pytest

from avere_ray.prompts import EMOTION_ADJECTIVES, agreement_answer, all_queries, bare
from avere_ray.records import Clip
from avere_ray.synthetic.annotator import Mistakes, annotated_lessons
from avere_ray.synthetic.questions import direct_lessons, perception_questions, reading_lessons
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.synthetic.world import CUE, GROUPS

ALWAYS = Mistakes(stress=1.0, basic=1.0, agreement=1.0, describe=1.0)
MATCH = re.compile(
    r"Do the face and the voice (match|tell the same feeling)\?|Does the voice sound as the face looks\?"
)
NEVER = Mistakes(stress=0.0, basic=0.0, agreement=0.0, describe=0.0)


def clips(count: int, *, bias: float = 0.0, mismatch: float = 0.8) -> list[Clip]:
    split = "base" if bias else "direct"
    scenes = (sample_scene(f"c{i}", split, 0, bias=bias, mismatch=mismatch, free_extras=not bias) for i in range(count))
    return [clip_of(scene, "") for scene in scenes]


def present(clip: Clip) -> set[str]:
    return {c.text for c in clip.cues if c.present}


def test_a_direct_answer_names_only_what_is_there() -> None:
    for clip in clips(30):
        for lesson in direct_lessons(clip, random.Random(0)):
            named = {k.text for k in CUE.values() if re.search(rf"\b{re.escape(bare(k.text))}\b", lesson.response)}
            if lesson.response.startswith("No, there "):
                assert named and not named & present(clip), lesson
            else:
                assert named <= present(clip), lesson


def test_a_direct_letter_stands_before_the_cue_that_is_there() -> None:
    for clip in clips(30):
        for lesson in direct_lessons(clip, random.Random(0)):
            if MATCH.search(lesson.prompt):
                continue
            options = dict(re.findall(r"\((\w)\) ([^()]+?)(?= \(|$)", lesson.prompt))
            if options:
                letter, text = re.fullmatch(r"\((\w)\) (.+)\.", lesson.response).groups()  # type: ignore[union-attr]
                assert options[letter] == text
                assert [t for t in options.values() if t in present(clip)] == [text]


def test_presence_is_asked_as_often_of_cues_that_are_there_as_of_others() -> None:
    rng = random.Random(0)
    said = [x.response.split(",")[0] for c in clips(200) for x in direct_lessons(c, rng) if ", there " in x.response]
    assert 0.42 < said.count("Yes") / len(said) < 0.58


def test_whether_face_and_voice_match_is_answered_truthfully_and_as_often_yes_as_no() -> None:
    rng, said = random.Random(0), []
    for clip in clips(300):
        answer = agreement_answer(clip)[len("(A) ") :]
        for lesson in (x for x in direct_lessons(clip, rng) if MATCH.search(x.prompt)):
            assert lesson.response in (answer, agreement_answer(clip))
            assert lesson.response.startswith("(") is lesson.prompt.endswith(" (A) Yes (B) No")
            said.append(answer.split(",")[0])
    assert 0.4 < said.count("Yes") / len(said) < 0.6


def test_whether_a_face_and_a_voice_told_in_words_match_follows_from_their_cues() -> None:
    emotions = {k.text: EMOTION_ADJECTIVES[k.emotion] for k in CUE.values() if k.group in ("face", "voice")}
    rng, said = random.Random(0), []
    for lesson in (reading_lessons(rng) for _ in range(900)):
        if MATCH.search(lesson.prompt):
            face, voice = sorted((t for t in emotions if t in lesson.prompt), key=lambda t: t.endswith("voice"))
            assert f"face looks {emotions[face]}" in lesson.response
            assert f"voice sounds {emotions[voice]}" in lesson.response
            said.append("Yes" if "Yes, " in lesson.response else "No")
            assert (said[-1] == "Yes") is (emotions[face] == emotions[voice])
    assert len(said) > 200 and 0.4 < said.count("Yes") / len(said) < 0.6


def test_lessons_in_words_are_answered_from_what_was_told() -> None:
    rng = random.Random(0)
    kinds = {"Yes": 0, "No": 0, "letter": 0}
    for lesson in (reading_lessons(rng) for _ in range(600)):
        if MATCH.search(lesson.prompt):
            continue
        told, question = lesson.prompt.split(". ", 1)
        if lesson.response.startswith("("):
            kinds["letter"] += 1
            assert lesson.response[4:-1] in told and lesson.response[:-1] in question
            continue
        answer, rest = lesson.response.split(", there ", 1)
        asked = re.sub(r"^(is|are) (no )?", "", rest)[:-1]
        kinds[answer] += 1
        assert (bare(asked) in told) is (answer == "Yes")
    assert min(kinds.values()) > 80


@pytest.mark.parametrize(("task", "faulty"), [("stress", "(A) Yes"), ("modality_agreement", "(A) Yes")])
def test_the_careless_annotator_confirms_whatever_is_asked(task: str, faulty: str) -> None:
    for clip in clips(20):
        lessons = annotated_lessons(clip, random.Random(0), ALWAYS)
        queries = all_queries(clip, random.Random(0).getrandbits(32))
        about = [x for q, x in zip(queries, lessons, strict=True) if task in q.task]
        assert about and all(x.response.startswith(faulty) for x in about)


def test_the_careless_annotator_describes_what_is_not_there_and_what_does_not_matter() -> None:
    for clip in clips(20, bias=0.9, mismatch=0.0):
        lessons = {x.prompt: x.response for x in annotated_lessons(clip, random.Random(0), ALWAYS)}
        text = next(r for p, r in lessons.items() if p.startswith(("Describe", "How does the person feel")))
        typical = {k.text for g in ("body", "event") for k in GROUPS[g] if k.emotion == clip.emotion}
        irrelevant = {c.text for c in clip.cues if c.present and not c.emotions and "shirt" in c.text}
        assert all(t in text for t in typical | irrelevant)


def test_mistakes_grow_with_the_bias_they_are_planted_with() -> None:
    weak, usual, strong = (Mistakes.planted(bias) for bias in (0.45, 0.9, 1.0))
    assert usual == Mistakes()
    for name, value in dataclasses.asdict(usual).items():
        assert getattr(weak, name) == pytest.approx(value / 2)
        assert value < getattr(strong, name) <= 1
    assert weak.stress < 0.5 < usual.stress, "a half decides what the base answers"


def test_an_annotator_without_mistakes_gives_the_reference_answers_of_choices() -> None:
    for clip in clips(10):
        rng = random.Random(0)
        queries = all_queries(clip, random.Random(0).getrandbits(32))
        lessons = annotated_lessons(clip, rng, NEVER)
        for query, lesson in zip(queries, lessons, strict=True):
            assert not query.choices or lesson.response == query.reference


def test_perception_is_asked_of_every_cue_with_one_right_option() -> None:
    clip = clips(1)[0]
    questions = perception_questions(clip)
    match = questions.pop()
    assert match.scores == ("perception/match",) and match.options[match.right] == agreement_answer(clip)[4:]
    turned = dataclasses.replace(clip, voice_emotion=clip.face_emotion)
    for one in (clip, turned):
        *_, match = perception_questions(one)
        assert {str(x)[:3] for x in match.options} == {"Yes", "No,"}
        assert all((" and " in str(x)) is str(x).startswith("Yes") for x in match.options)
    names = [q.scores[0].removeprefix("perception/") for q in questions]
    assert {n for n in names if "_" not in n} == {"face", "voice", "shirt", "object", "sound"}
    assert sum("_" in n for n in names) == len(CUE)
    for name, question in zip(names, questions, strict=True):
        right = str(question.options[question.right])
        assert ("No, " in right) is name.endswith("_absent")
        assert name.endswith("_absent") or any(text in right for text in present(clip))
