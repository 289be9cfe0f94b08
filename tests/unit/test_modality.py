"""Swaps replace what is asked about and nothing else; partners are reproducible and really differ."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avere_ray.arrow import from_row, to_row
from avere_ray.corruptions import CORRUPTIONS
from avere_ray.errors import InputError
from avere_ray.modality import (
    PARTNER_STRATEGIES,
    PartnerIndex,
    apply_swap,
    choose_partner,
    fit_swap,
    partner_ids,
)
from avere_ray.records import Clip, Cue, DecodedClip, Modality, ModalitySwap, Query

EMOTIONS = ("happiness", "sadness", "anger")
MODALITIES: tuple[Modality, ...] = ("audio", "video", "audio_video")


def decoded(clip_id: str, frames: int, samples: int, value: int = 1) -> DecodedClip:
    return DecodedClip(
        clip_id=clip_id,
        spec="s",
        frames=np.full((frames, 2, 2, 3), value, np.uint8) + np.arange(frames, dtype=np.uint8)[:, None, None, None],
        frame_times_s=np.linspace(0, 1, frames, dtype=np.float32),
        waveform=np.full(samples, value / 100, np.float32),
        duration_s=samples / 16000,
    )


def query(modality: Modality, clip_id: str = "c0", query_id: str = "q") -> Query:
    return Query(query_id=query_id, clip_id=clip_id, modality=modality, task="t", prompt="?")


def clip(i: int, face: str = "", voice: str = "", identity: str = "", emotion: str = "", split: str = "train") -> Clip:
    return Clip(clip_id=f"c{i}", uri="u", face_emotion=face, voice_emotion=voice, identity=identity, split=split,
                emotion=emotion)  # fmt: skip


clips_strategy = st.lists(
    st.tuples(
        st.sampled_from(EMOTIONS),
        st.sampled_from(EMOTIONS),
        st.sampled_from(["", "p", "q", "r"]),
        st.sampled_from(["", *EMOTIONS]),
    ),
    min_size=2,
    max_size=80,
).map(lambda rows: [clip(i, *row) for i, row in enumerate(rows)])


@settings(deadline=None)
@given(
    modality=st.sampled_from(MODALITIES),
    own=st.tuples(st.integers(1, 6), st.integers(1, 50)),
    other=st.tuples(st.integers(1, 6), st.integers(1, 50)),
)
def test_only_the_swapped_modality_changes_and_shapes_stay(
    modality: Modality, own: tuple[int, int], other: tuple[int, int]
) -> None:
    a, b = decoded("a", *own, value=1), decoded("b", *other, value=100)
    swap = ModalitySwap(
        modality=modality,
        strategy="x",
        audio_clip_id="a" if modality == "video" else "b",
        video_clip_id="a" if modality == "audio" else "b",
    )
    result = apply_swap(a, swap, b, b)
    assert result.frames.shape == a.frames.shape
    assert result.waveform.shape == a.waveform.shape
    assert result.waveform.dtype == np.float32
    assert np.array_equal(result.frame_times_s, a.frame_times_s)
    assert result.duration_s == a.duration_s
    assert result.clip_id not in {"a", "b"}
    kept = min(own[1], other[1])
    if modality == "video":
        assert np.array_equal(result.waveform, a.waveform)
    else:
        assert np.array_equal(result.waveform[:kept], b.waveform[:kept])
        assert not result.waveform[kept:].any()
    if modality == "audio":
        assert np.array_equal(result.frames, a.frames)
    else:
        assert set(result.frames[:, 0, 0, 0].tolist()) <= set(b.frames[:, 0, 0, 0].tolist())
        assert result.frames[0, 0, 0, 0] == b.frames[0, 0, 0, 0]


def test_the_originals_stay_untouched() -> None:
    a, b = decoded("a", 3, 10, 1), decoded("b", 3, 6, 100)
    before = a.waveform.copy(), b.waveform.copy(), a.frames.copy()
    result = apply_swap(a, ModalitySwap(modality="audio", strategy="x", audio_clip_id="b", video_clip_id="a"), b, None)
    result.waveform[:] = 7
    assert np.array_equal(a.waveform, before[0])
    assert np.array_equal(b.waveform, before[1])
    assert np.array_equal(a.frames, before[2])


def test_a_wrong_or_missing_partner_is_refused() -> None:
    a, b = decoded("a", 2, 4), decoded("b", 2, 4)
    swap = ModalitySwap(modality="audio", strategy="x", audio_clip_id="z", video_clip_id="a")
    with pytest.raises(InputError, match="takes its audio from clip z; got b"):
        apply_swap(a, swap, b, None)
    with pytest.raises(InputError, match="got nothing"):
        apply_swap(a, swap, None, None)


def test_frames_of_another_size_are_refused() -> None:
    a = decoded("a", 2, 4)
    wide = DecodedClip(clip_id="b", spec="s", frames=np.zeros((2, 4, 4, 3), np.uint8),
                       frame_times_s=a.frame_times_s, waveform=a.waveform, duration_s=1.0)  # fmt: skip
    swap = ModalitySwap(modality="video", strategy="x", audio_clip_id="a", video_clip_id="b")
    with pytest.raises(InputError, match="one size"):
        apply_swap(a, swap, None, wide)


@settings(deadline=None, max_examples=60)
@given(clips=clips_strategy, modality=st.sampled_from(MODALITIES), seed=st.integers(0, 5), data=st.data())
def test_partner_differs_where_it_was_asked_to(
    clips: list[Clip], modality: Modality, seed: int, data: st.DataObject
) -> None:
    own = clips[data.draw(st.integers(0, len(clips) - 1))]
    by_id = {c.clip_id: c for c in clips}
    parts = ("face_emotion", "voice_emotion") if modality == "audio_video" else (
        ("face_emotion",) if modality == "video" else ("voice_emotion",))  # fmt: skip
    ask = query(modality, own.clip_id)
    if any(len({getattr(c, p) for c in clips}) < 2 for p in parts):
        with pytest.raises(InputError, match="only the emotion"):
            choose_partner(ask, own, clips, strategy="other_emotion", seed=seed)
        return
    swap = choose_partner(ask, own, clips, strategy="other_emotion", seed=seed)
    fitting = [c for c in clips if c is not own and not (c.identity and c.identity == own.identity)
               and all(getattr(c, p) != getattr(own, p) for p in parts)
               and not (modality == "audio_video" and own.emotion and c.emotion == own.emotion)]  # fmt: skip
    if swap is None:
        assert not fitting
        return
    partners = {swap.audio_clip_id, swap.video_clip_id} - {own.clip_id}
    assert len(partners) == 1
    assert by_id[partners.pop()] in fitting
    assert (swap.audio_clip_id == own.clip_id) == (modality == "video")
    assert (swap.video_clip_id == own.clip_id) == (modality == "audio")


@settings(deadline=None, max_examples=30)
@given(clips=clips_strategy, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_the_order_of_clips_or_calls(
    clips: list[Clip], seed: int, order: random.Random
) -> None:
    clips = [*clips, clip(900, "happiness", "happiness"), clip(901, "anger", "anger")]
    queries = [query("video", c.clip_id, f"q{i}") for i, c in enumerate(clips)]
    index = PartnerIndex(clips)
    once = {q.query_id: index.choose(q, strategy="other_emotion", seed=seed) for q in queries}
    order.shuffle(queries)
    shuffled = PartnerIndex(order.sample(clips, len(clips)))
    again = {q.query_id: shuffled.choose(q, strategy="other_emotion", seed=seed) for q in queries}
    assert again == once


def test_seed_and_query_change_the_choice() -> None:
    clips = [clip(i, EMOTIONS[i % 3], EMOTIONS[i % 3]) for i in range(200)]
    index = PartnerIndex(clips)

    def partner(query_id: str, seed: int) -> str:
        swap = index.choose(query("video", "c0", query_id), strategy="other_emotion", seed=seed)
        assert swap is not None
        return swap.video_clip_id

    assert len({partner(f"q{i}", 0) for i in range(20)}) > 5
    assert len({partner("q", seed) for seed in range(20)}) > 5


@pytest.mark.parametrize("strategy", PARTNER_STRATEGIES)
def test_a_question_about_both_gets_no_partner_annotated_as_a_whole_with_the_same_emotion(strategy: str) -> None:
    own = clip(0, "anger", "sadness", emotion="angry")
    clips = [own, clip(1, "fear", "anger", emotion="anger"), clip(2, "fear", "anger", emotion="fear")]
    found = {choose_partner(query("audio_video"), own, clips, strategy=strategy, seed=s) for s in range(20)}
    assert {s.audio_clip_id for s in found if s} == {"c2"}
    alone = {choose_partner(query("video"), own, clips, strategy=strategy, seed=s) for s in range(20)}
    assert {s.video_clip_id for s in alone if s} == {"c1", "c2"}


def test_nearest_in_duration_is_taken() -> None:
    clips = [clip(0, "happiness"), clip(1, "anger"), clip(2, "anger"), clip(3, "sadness")]
    durations = {"c0": 2.0, "c1": 9.0, "c2": 2.1, "c3": 4.0}
    swap = choose_partner(query("video"), clips[0], clips, strategy="other_emotion", seed=0, durations_s=durations)
    assert swap is not None and swap.video_clip_id == "c2"


def test_partners_stay_in_their_split() -> None:
    clips = [clip(0, "happiness"), clip(1, "anger", split="test")]
    assert choose_partner(query("video"), clips[0], clips, strategy="other_emotion", seed=0) is None


def test_random_clip_ignores_emotion_but_not_identity() -> None:
    clips = [clip(0, "anger", identity="p"), clip(1, "anger", identity="p"), clip(2, "anger", identity="q")]
    swap = choose_partner(query("audio"), clips[0], clips, strategy="random_clip", seed=0)
    assert swap is not None and swap.audio_clip_id == "c2"


def test_a_rare_partner_is_found_in_a_large_corpus() -> None:
    clips = [clip(i, "anger") for i in range(500)] + [clip(500, "fear")]
    swap = choose_partner(query("video"), clips[0], clips, strategy="other_emotion", seed=1)
    assert swap is not None and swap.video_clip_id == "c500"


def test_a_corpus_without_labels_or_with_an_unknown_strategy_is_refused() -> None:
    clips = [clip(0), clip(1)]
    with pytest.raises(InputError, match=r"no emotion labels.*random_clip"):
        choose_partner(query("video"), clips[0], clips, strategy="other_emotion", seed=0)
    with pytest.raises(InputError, match=r"unknown swap strategy 'hum'.*other_emotion, random_clip, noise"):
        choose_partner(query("video"), clips[0], clips, strategy="hum", seed=0)


@pytest.mark.parametrize("strategy", PARTNER_STRATEGIES)
def test_one_emotion_in_the_whole_corpus_is_refused_with_what_to_do(strategy: str) -> None:
    clips = [clip(0, "anger", "fear"), clip(1, "angry", "sadness")]
    with pytest.raises(InputError, match=r"2 clips have only the emotion 'anger' in their video.*noise, blank, crop"):
        choose_partner(query("audio_video"), clips[0], clips, strategy=strategy, seed=0)


@pytest.mark.parametrize("field", ["identity", "source_video", "sha256"])
def test_a_partner_never_shares_person_video_or_file(field: str) -> None:
    own = dataclasses.replace(clip(0, "anger"), **{field: "same"})
    kin = [dataclasses.replace(clip(i, "fear"), **{field: "same"}) for i in range(1, 100)]
    assert choose_partner(query("video"), own, kin, strategy="other_emotion", seed=0) is None
    stranger = dataclasses.replace(clip(200, "fear"), **{field: "other"})
    swap = choose_partner(query("video"), own, [*kin, stranger], strategy="other_emotion", seed=0)
    assert swap is not None and swap.video_clip_id == "c200"


@pytest.mark.parametrize("strategy", PARTNER_STRATEGIES)
def test_words_for_one_emotion_count_as_one(strategy: str) -> None:
    clips = [clip(0, "Happy"), clip(1, "joy"), clip(2, "happiness"), clip(3, "sad")]
    partners = {choose_partner(query("video"), clips[0], clips, strategy=strategy, seed=s) for s in range(20)}
    assert {s.video_clip_id for s in partners if s} == {"c3"}


def test_a_random_clip_may_be_unlabelled_but_not_known_to_feel_the_same() -> None:
    clips = [clip(0, "anger"), clip(1, "anger"), clip(2)]
    partners = {choose_partner(query("video"), clips[0], clips, strategy="random_clip", seed=s) for s in range(20)}
    assert {s.video_clip_id for s in partners if s} == {"c2"}


@pytest.mark.parametrize("strategy", CORRUPTIONS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_made_medium_follows_from_the_record_alone(modality: Modality, strategy: str) -> None:
    own = dataclasses.replace(
        decoded("c0", 4, 3200), waveform=np.sin(np.arange(3200, dtype=np.float32) / 9) / 2,
        frames=np.arange(4 * 28 * 28 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 28, 28, 3))  # fmt: skip
    before = own.frames.copy(), own.waveform.copy()
    swap = choose_partner(query(modality), clip(0), [], strategy=strategy, seed=3, level=0.6)
    assert swap is not None
    assert partner_ids(swap, "c0") == (None, None)
    again = from_row(ModalitySwap, to_row(swap))
    first, second = apply_swap(own, swap, None, None), apply_swap(own, again, None, None)
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.waveform, second.waveform)
    assert np.array_equal(own.frames, before[0]) and np.array_equal(own.waveform, before[1])
    assert np.array_equal(first.frames, own.frames) == (modality == "audio")
    assert np.array_equal(first.waveform, own.waveform) == (modality == "video")
    assert (swap.video_clip_id == "c0") == (modality == "audio")
    assert (swap.audio_clip_id == "c0") == (modality == "video")
    assert (first.frames.shape, first.frames.dtype) == (own.frames.shape, np.uint8)
    assert (first.waveform.shape, first.waveform.dtype) == (own.waveform.shape, np.float32)
    assert first.clip_id != own.clip_id


def test_seed_and_level_make_other_media_with_other_ids() -> None:
    def made(strategy: str, seed: int, level: float = 0.5) -> ModalitySwap:
        swap = choose_partner(query("video"), clip(0), [], strategy=strategy, seed=seed, level=level)
        assert swap is not None
        return swap

    assert made("noise", 0) != made("noise", 1)
    assert made("noise", 0, 0.1) == made("noise", 0, 0.9)
    assert made("blank", 0) == made("blank", 1)
    ids = [made(*a).video_clip_id for a in (("noise", 0), ("noise", 1), ("diffusion", 0, 0.1), ("diffusion", 0, 0.2))]
    assert len(set(ids)) == 4
    assert partner_ids(ModalitySwap(modality="audio", strategy="other_emotion", audio_clip_id="b", video_clip_id="a"),
                       "a") == ("b", None)  # fmt: skip


def test_partners_that_change_the_answer_about_a_cue_come_first() -> None:
    """A question about an absent cue is set against clips that have it, one about a present cue against the others."""

    def having(i: int, *, there: bool) -> Clip:
        laugh = Cue(name="laugh", modality="audio", text="a laugh", present=there, emotions=("happiness",))
        return dataclasses.replace(clip(i, "sadness", "sadness"), cues=(laugh,))

    others = [having(i, there=i % 10 == 3) for i in range(1, 40)]
    own = clip(0, "happiness", "happiness")
    for subtype, wanted in (("hallucination", True), ("no_hallucination", False), ("spurious", None)):
        partners = set()
        for name in "abcdefgh":
            asked = dataclasses.replace(query("audio", query_id=name), subtype=subtype, about_cue="laugh")
            swap = choose_partner(asked, own, others, strategy="other_emotion", seed=0)
            assert swap is not None
            partners.add(int(swap.audio_clip_id[1:]) % 10 == 3)
        assert partners == ({wanted} if wanted is not None else partners)
    nobody = [having(i, there=False) for i in range(1, 5)]
    asked = dataclasses.replace(query("audio"), subtype="hallucination", about_cue="laugh")
    assert choose_partner(asked, own, nobody, strategy="other_emotion", seed=0) is not None


FITTED: dict[tuple[str, str], tuple[str, str, str] | None] = {
    ("audio", "audio"): ("audio", "c1", "c0"),
    ("audio_video", "audio"): ("audio", "c1", "c0"),
    ("audio_video", "video"): ("video", "c0", "c1"),
    ("audio", "audio_video"): ("audio", "c1", "c0"),
    ("audio", "video"): None,
    ("video", "audio"): None,
    ("video", ""): ("video", "c0", "c1"),
}
"""What a swap replaces and what the prompt asks about; what is replaced then, and whose sound and picture it has."""


@pytest.mark.parametrize(("replaced", "asked"), FITTED)
def test_a_given_swap_replaces_what_is_asked_about(replaced: Modality, asked: str) -> None:
    audio, video = ("c1" if part in replaced.split("_") else "c0" for part in ("audio", "video"))
    swap = ModalitySwap(modality=replaced, strategy="data", audio_clip_id=audio, video_clip_id=video)
    found = fit_swap(swap, asked, "c0")
    wanted = FITTED[replaced, asked]
    assert (found and (found.modality, found.audio_clip_id, found.video_clip_id)) == wanted
