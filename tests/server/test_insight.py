"""What an answer rests on: cues read from its words, and figures worked out by hand from an engine's log-probs."""

import itertools
import json
import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import pytest

from avere_ray.asked import Asked, asked_modality
from avere_ray.errors import InputError, StageError
from avere_ray.fakes import FakeFace
from avere_ray.insight import Probe, Reference, analyse, conclude, make_probes, read_answer, to_json
from avere_ray.insight import cues as cues_module
from avere_ray.insight.cues import MOST_CITATIONS, MOST_CUES
from avere_ray.insight.lexicon import common_cues
from avere_ray.insight.probes import EMOTIONS
from avere_ray.records import DecodedClip
from avere_ray.responses import tokens as tokens_module
from avere_ray.responses.words import REACH

OPEN = "How does the person feel, and how can you tell?"
ANSWER = "The person looks happy. I see a wide smile and a yellow shirt. I hear sobbing."


def clip(clip_id: str = "c", level: int = 100, side: int = 28) -> DecodedClip:
    return DecodedClip(
        clip_id=clip_id,
        spec="",
        frames=np.full((2, side, side, 3), level, np.uint8),
        frame_times_s=np.array([0.0, 1.0], np.float32),
        waveform=np.full(16_000, level / 255, np.float32),
        duration_s=1.0,
    )


REFERENCES = [
    Reference(clip=clip("joy", 10), emotion="happiness"),
    Reference(clip=clip("grief", 20), emotion="sadness"),
    Reference(clip=clip("rage", 30), emotion="anger"),
]


def shown(probe: Probe) -> tuple[int | None, int | None]:
    """Level of the frames and of the sound that a probe shows."""
    if probe.clip is None:
        return None, None
    return int(probe.clip.frames[0, 0, 0, 0]), round(float(probe.clip.waveform[0]) * 255)


def listening(probe: Probe, option: str) -> float:
    """A model that likes its answer by 4 nats less without the right sound, and by 1 less without the right frames."""
    if probe.about[0] == "cue":
        certain = np.log(0.9 if "smile" in probe.prompt else 0.2)
        return float(certain if option == "Yes" else np.log1p(-np.exp(certain)))
    if probe.about[0] in ("face", "voice"):
        return 0.0 if ("happy" if probe.about[0] == "face" else "sad") in option else -20.0
    frames, sound = shown(probe)
    if frames is None:
        return -16.0
    return -8.0 - (0.0 if frames == 100 else 1.0) - (0.0 if sound == 100 else 4.0 + (sound == 30))


def test_figures_follow_from_the_log_probs() -> None:
    face = FakeFace(lambda question: ANSWER, listening)
    found = analyse(face, clip(), OPEN, REFERENCES)
    assert (found.emotion, found.answer) == ("happiness", ANSWER)
    assert [(c.text, c.modality, c.use) for c in found.cues] == [
        ("wide smile", "video", "relied_on"),
        ("yellow shirt", "video", "relied_on"),
        ("sobbing", "audio", "relied_on"),
    ]
    assert all(ANSWER[slice(*c.span)] == c.text for c in found.cues)
    assert [c.confidence for c in found.cues] == pytest.approx([0.9, 0.2, 0.2])
    a = found.agreement
    assert (a.face, a.voice, a.agree) == ("happiness", "sadness", False) and a.confidence == pytest.approx(1.0)
    g = found.grounding
    assert g is not None
    assert (g.audio.removed, g.video.removed, g.text_only, g.logp) == (4.0, 1.0, 8.0, -8.0)
    assert (g.audio.swapped, g.video.swapped, g.references) == (4.5, 1.0, 2)  # joy is what the answer names
    assert g.tokens == len(ANSWER.split())
    assert g.audio.removed_per_token == pytest.approx(4.0 / g.tokens)
    assert g.audio.swapped_per_token == pytest.approx(4.5 / g.tokens)


def test_everything_is_scored_in_one_call_and_the_cost_is_its_count() -> None:
    face = FakeFace(lambda question: ANSWER, listening)
    found = analyse(face, clip(), OPEN, REFERENCES)
    [probes] = face.batches
    options = sum(len(p.options) for p in probes)
    assert options == 2 * 3 + 2 * len(EMOTIONS) + 4 + 2 * 2
    words = sum(10 + len(o.split()) for p in probes for o in p.options)
    assert (found.cost.passes, found.cost.tokens) == (1 + options, 10 + len(ANSWER.split()) + words)


def test_grounding_and_generation_can_be_left_out() -> None:
    face = FakeFace(lambda question: "never asked", listening)
    found = analyse(face, clip(), OPEN, REFERENCES, answer=ANSWER, grounding=False)
    assert found.answer == ANSWER and found.grounding is None
    assert found.cost.passes == 2 * 3 + 2 * len(EMOTIONS)
    empty = analyse(face, clip(), OPEN, REFERENCES, answer=" ")
    assert (empty.emotion, empty.cues, empty.grounding) == ("", (), None)


def test_each_view_changes_one_medium_alone() -> None:
    probes = make_probes(read_answer(OPEN, ANSWER), clip(), REFERENCES)
    views = {p.about: shown(p) for p in probes}
    assert views["face",] == (100, 0) and views["voice",] == (0, 100)
    assert views["plain",] == (100, 100) and views["text_only",] == (None, None)
    assert views["removed", "audio"] == (100, 0) and views["removed", "video"] == (0, 100)
    assert [views["swapped", "audio", i] for i in (0, 1)] == [(100, 20), (100, 30)]
    assert [views["swapped", "video", i] for i in (0, 1)] == [(20, 100), (30, 100)]
    assert [about[1] for about in views if about[0] == "cue"] == [
        "Is there a wide smile?", "Is there a yellow shirt?", "Do you hear sobbing?"]  # fmt: skip
    assert all(view == (100, 100) for about, view in views.items() if about[0] == "cue")


def test_without_references_nothing_is_swapped() -> None:
    found = analyse(FakeFace(lambda question: ANSWER, listening), clip(), OPEN)
    assert found.grounding is not None
    assert (found.grounding.audio.swapped, found.grounding.audio.swapped_per_token) == (None, None)
    assert (found.grounding.audio.removed, found.grounding.references) == (4.0, 0)
    only = analyse(FakeFace(lambda question: ANSWER, listening), clip(), OPEN, REFERENCES[:1])
    assert only.grounding is not None and only.grounding.references == 1  # better than none


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="frames of one size"):
        make_probes(read_answer(OPEN, ANSWER), clip(), [Reference(clip=clip("small", side=14))])
    reading = read_answer(OPEN, ANSWER)
    probes = make_probes(reading, clip())
    scored = FakeFace(str, listening).score(probes)
    with pytest.raises(StageError, match="not every option"):
        conclude(reading, probes, [*scored[:-1], replace(scored[-1], logps=())])


def test_the_json_has_the_promised_names() -> None:
    body = to_json(analyse(FakeFace(lambda question: ANSWER, listening), clip(), OPEN, REFERENCES))
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert list(body) == ["emotion", "answer", "cues", "agreement", "grounding", "cost"]
    assert set(body["cues"][0]) == {"text", "modality", "confidence", "span", "use"}
    assert body["cues"][0]["span"] == [ANSWER.index("wide"), ANSWER.index("wide") + len("wide smile")]
    assert set(body["agreement"]) == {"face", "voice", "agree", "confidence"}
    assert {"removed", "swapped"} <= set(body["grounding"]["audio"]) & set(body["grounding"]["video"])
    assert set(body["cost"]) == {"passes", "tokens"}


@pytest.mark.parametrize(
    ("question", "answer", "emotion", "cues"),
    [
        ("Is the yellow shirt a sign? (A) Yes (B) No", "(B) No, the yellow shirt says nothing about the emotion.", "",
         [("yellow shirt", "video", "set_aside", "Is there a yellow shirt?")]),
        ("Do the fists show it?", "No, there are no clenched fists.", "",
         [("clenched fists", "video", "denied", "Are there clenched fists?")]),
        ("Which emotion? (A) happy (B) sad", "(B)", "sadness", []),
        (OPEN, "She is not angry but afraid: her voice trembles.", "fear",
         [("voice trembles", "audio", "relied_on", "Do you hear a trembling voice?")]),
        (OPEN, "The hoarse tone suggests exhaustion.", "",
         [("hoarse tone", "audio", "relied_on", "Do you hear hoarse tone?")]),
        (OPEN, "The woman in the red dress is delighted.", "happiness",
         [("dress", "video", "relied_on", "Is there a dress?")]),
        (OPEN, "Die Person ist traurig. Ich höre Schluchzen.", "sadness",
         [("Schluchzen", "audio", "relied_on", "Do you hear sobbing?")]),
        (OPEN, "The face looks happy but the person is sad.", "sadness", []),
        (OPEN, "", "", []),
        (OPEN, "(A) (C) 🙂 \x00", "", []),
    ],
)  # fmt: skip
def test_an_answer_is_read(question: str, answer: str, emotion: str, cues: list[tuple[str, str, str, str]]) -> None:
    reading = read_answer(question, answer)
    assert reading.emotion == emotion
    assert [(c.text, c.modality, c.use, c.question) for c in reading.cues] == cues


def test_a_cue_is_asked_about_once_and_a_long_list_is_cut() -> None:
    again = read_answer(OPEN, "I see tears. I hear rain. Yes, I see tears.")
    assert [c.text for c in again.cues] == ["tears", "rain", "tears"]
    probes = [p for p in make_probes(again, clip()) if p.about[0] == "cue"]
    assert [p.prompt for p in probes] == ["Are there tears?", "Do you hear rain?"]
    found = analyse(FakeFace(str, listening), clip(), OPEN, answer=again.answer)
    assert len({c.confidence for c in found.cues}) == 1 and len(found.cues) == 3
    flood = read_answer(OPEN, " ".join(f"I see {cue.text}." for cue in common_cues()))
    assert len({c.question for c in flood.cues}) == MOST_CUES


def test_spans_never_overlap() -> None:
    long = (
        "I see a smile, a wide smile, wide eyes and a grin; the crooked hat shows joy. I hear music, piano music. " * 5
    )
    cues = read_answer(OPEN, long).cues
    assert len(cues) > 20
    assert all(a.span[1] <= b.span[0] for a, b in itertools.pairwise(cues))


# Texts of strangers -------------------------------------------------------------------------------------------------


def steps(answer: str) -> int:
    """Lines of Python that reading an answer takes."""
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        read_answer(OPEN, answer)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit",
    ["show box", "see box", "because of box", "nod", "sad", "no sad", "if", "were he", "is he?", "smile is", "smile,",
     "smile says nothing, sad", "not crying sad but", "box. sad", "ich sehe regen", "nicht", "je ne vois pas", "雨是"],
)  # fmt: skip
def test_reading_takes_as_many_steps_as_an_answer_is_long(unit: str) -> None:
    short = f"{unit} " * (4 * REACH)
    steps(short)  # what is made once is made
    assert steps(short * 2) < 2.5 * steps(short)


def test_a_question_of_line_breaks_is_split_as_any_other() -> None:
    assert asked_modality("\n" * 400_000 + "What do you hear? \n  A. her smile").modality == "audio"


def test_the_question_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def counted(text: str) -> Asked:
        texts.append(text)
        return asked_modality(text)

    monkeypatch.setattr(cues_module, "asked_modality", counted)
    reading = read_answer("What do you hear?", "Because of a box. " * 30 + "I feel it because of pots, and a box too.")
    assert {c.modality for c in reading.cues} == {"audio"} and len(reading.cues) == 31
    assert texts.count("What do you hear?") == 1
    assert len(texts) <= 1 + 2 * 31


def test_of_very_many_things_the_first_are_looked_at() -> None:
    cues = read_answer(OPEN, "I see a nod. " * (MOST_CITATIONS + 10)).cues
    assert len(cues) == MOST_CITATIONS and cues[0].span == (8, 11)


def test_forms_of_long_words_are_not_kept() -> None:
    kept = tokens_module._kept_form.cache_info().currsize
    for i in range(10):
        assert tokens_module.canonical("ab" * 500 + f"{i}xs") == "ab" * 500 + f"{i}x"
    assert tokens_module._kept_form.cache_info().currsize == kept
