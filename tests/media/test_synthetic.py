"""The synthetic world: reproducible, biased where it should be, and never the same in training and in test."""

import dataclasses
import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from avere_ray.prompts import TASKS
from avere_ray.synthetic.annotator import captioned
from avere_ray.synthetic.clips import CorpusSpec, benchmark_items, plan_scenes, write_clip
from avere_ray.synthetic.draw import FPS, SECONDS, SIZE, _shot_of, draw_frames
from avere_ray.synthetic.scene import clip_of, inventory, present_cues, sample_scene, with_cue, without_cue
from avere_ray.synthetic.sheet import COLUMNS, MOST, contact_sheet
from avere_ray.synthetic.voice import RATE, make_waveform
from avere_ray.synthetic.world import CUE, EMOTIONS, GROUPS

COMPANIONS = (("shirt", "shirt", "face"), ("object", "background", "face"), ("sound", "sound", "voice"))
SPEC = CorpusSpec(seed=0, train_clips=400, test_clips=400, bias=0.9)


def test_training_and_held_out_clips_share_no_person_and_no_cell_of_emotion_and_colour():
    scenes = plan_scenes(SPEC) + plan_scenes(dataclasses.replace(SPEC, held_out="validation", train_clips=0))
    scenes += [sample_scene(f"b{i}", "base", 0, bias=0.9, mismatch=0.3) for i in range(400)]
    parts = {split: [s for s in scenes if s.split == split] for split in ("base", "train", "test", "validation")}
    for one, other in itertools.combinations(parts, 2):
        assert not {s.identity for s in parts[one]} & {s.identity for s in parts[other]}
        if {one, other} != {"base", "train"}:
            assert not {(s.face, s.shirt) for s in parts[one]} & {(s.face, s.shirt) for s in parts[other]}
    assert len({s.scene_id for s in scenes}) == len({s.seed for s in scenes}) == len(scenes)


def test_clips_that_teach_perception_show_every_emotion_with_every_shirt_in_combinations_of_their_own():
    taught = [sample_scene(f"d{i}", "direct", 0, bias=0.0, mismatch=0.8) for i in range(1000)]
    tested = [sample_scene(f"t{i}", "test", 0, bias=0.0, mismatch=0.5) for i in range(1000)]
    assert len({(s.face, s.shirt) for s in taught}) == len(EMOTIONS) ** 2
    assert not {s.identity for s in taught} & {s.identity for s in tested}
    assert not {s.combination() for s in taught} & {s.combination() for s in tested}


@pytest.mark.parametrize("bias", [0.5, 0.75, 0.9, 1.0])
def test_bias_and_mismatch_are_those_that_were_asked_for(bias: float):
    scenes = [sample_scene(f"x{i}", "train", 0, bias=bias, mismatch=0.3) for i in range(3000)]
    assert np.mean([s.face != s.voice for s in scenes]) == pytest.approx(0.3, abs=0.03)
    for group, field, lead in COMPANIONS:
        names = {e: g.name for e, g in zip(EMOTIONS, GROUPS[group], strict=True)}
        assert np.mean([getattr(s, field) == names[getattr(s, lead)] for s in scenes]) == pytest.approx(bias, abs=0.03)


def test_objects_and_sounds_of_held_out_clips_are_independent_of_the_emotion_and_no_shirt_agrees_with_it():
    """A shirt tells two emotions of seven, since held-out clips have cells of emotion and colour of their own."""
    scenes = [sample_scene(f"x{i}", "test", 0, bias=0.0, mismatch=0.5) for i in range(3000)]
    for (group, field, lead), share in zip(COMPANIONS, (0, 1 / 7, 1 / 7), strict=True):
        names = {e: g.name for e, g in zip(EMOTIONS, GROUPS[group], strict=True)}
        assert np.mean([getattr(s, field) == names[getattr(s, lead)] for s in scenes]) == pytest.approx(share, abs=0.03)


def test_a_seed_gives_the_same_scenes_and_another_seed_gives_others():
    assert plan_scenes(SPEC) == plan_scenes(SPEC)
    other = CorpusSpec(seed=1, train_clips=400, test_clips=400, bias=0.9)
    assert plan_scenes(SPEC) != plan_scenes(other)


def test_drawing_a_scene_twice_gives_the_same_pixels_and_samples():
    scene = sample_scene("x", "train", 0, bias=0.5, mismatch=0.5)
    assert (draw_frames(scene) == draw_frames(scene)).all()
    assert (make_waveform(scene) == make_waveform(scene)).all()


@pytest.mark.parametrize("cue", sorted(CUE))
def test_a_scene_drawn_again_with_one_cue_changed_differs_in_that_medium_alone(cue):
    kind = CUE[cue]
    scene = next(
        s for s in (sample_scene(f"x{i}", "train", 3, bias=0.5, mismatch=0.5) for i in range(50))
        if cue not in present_cues(s)
    )  # fmt: skip
    other = with_cue(scene, cue)
    seen = (draw_frames(scene) != draw_frames(other)).any()
    heard = (make_waveform(scene) != make_waveform(other)).any()
    assert (seen, heard) == ((True, False) if kind.modality == "video" else (False, True))
    gone = present_cues(scene) - present_cues(other)
    assert present_cues(other) - present_cues(scene) == {cue}
    assert gone <= {c.name for c in GROUPS[kind.group]}
    if kind.group in ("body", "event"):
        assert not gone
        back = without_cue(other, cue)
        assert (draw_frames(back) == draw_frames(scene)).all() and (make_waveform(back) == make_waveform(scene)).all()


def test_a_cue_that_is_not_there_cannot_be_taken_away():
    scene = sample_scene("x", "train", 0, bias=0.5, mismatch=0.5)
    absent = next(c.name for c in GROUPS["body"] if c.name not in scene.body)
    with pytest.raises(KeyError):
        without_cue(scene, absent)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_face_moves_though_the_head_is_still_and_shows_how_strong_the_emotion_is(emotion):
    scene = next(
        s for s in (sample_scene(f"x{i}", "train", 0, bias=0.0, mismatch=0.0) for i in range(2000))
        if s.face == emotion and not s.body and _shot_of(s.seed).movement == "still"
    )  # fmt: skip
    weak, strong = (dataclasses.replace(scene, intensity=k) for k in (0.6, 1.0))
    assert len({frame.tobytes() for frame in draw_frames(scene)}) > 2
    shown, heard = draw_frames(weak) != draw_frames(strong), make_waveform(weak) != make_waveform(strong)
    assert shown.any() == heard.any() == (emotion != "neutral"), "no emotion has no strength"


def test_the_same_cue_never_looks_or_sounds_the_same_twice():
    """Place, size, light, movement, loudness and timing differ from clip to clip."""
    first = sample_scene("x", "train", 0, bias=0.9, mismatch=0.0)
    second = dataclasses.replace(first, seed=first.seed + 1)
    assert np.mean(draw_frames(first) != draw_frames(second)) > 0.3
    assert np.mean(make_waveform(first) != make_waveform(second)) > 0.9


def test_what_is_no_cue_varies_in_place_size_light_movement_and_what_stands_before_the_camera():
    shots = [_shot_of(sample_scene(f"x{i}", "train", 0, bias=0.9, mismatch=0.0).seed) for i in range(400)]
    for name, least in (("scale", 0.15), ("dx", 0.08), ("dy", 0.03), ("light", 0.25), ("slant", 0.4), ("speed", 0.6)):
        assert np.ptp([getattr(shot, name) for shot in shots]) > least, name
    assert {shot.movement for shot in shots} == {"still", "nod", "shake", "sway"}
    assert 0.05 < np.mean([shot.pole > 0 for shot in shots]) < 0.2


def test_a_pole_before_the_camera_hides_what_is_behind_it():
    scenes = (sample_scene(f"x{i}", "train", 0, bias=0.9, mismatch=0.0) for i in range(400))
    scene = next(s for s in scenes if _shot_of(s.seed).pole)
    column = round(_shot_of(scene.seed).pole * SIZE)
    shown = draw_frames(scene)[:, :, column].astype(int)
    assert np.ptp(shown, axis=(0, 1)).max() == 0, "one colour from top to bottom, at all times"


@pytest.mark.parametrize(("strength", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 1.0, 1.0)])
def test_captions_name_absent_stereotypes_as_often_as_they_are_asked_to(strength, low, high):
    clips = [clip_of(s, "") for s in plan_scenes(SPEC)]
    named = []
    for i, clip in enumerate(clips):
        caption = captioned(clip, random.Random(i), text_prior=strength, dominance=0.0).caption
        absent = [c for c in clip.cues if not c.present and c.text in caption]
        typical = next(k for k in GROUPS["body"] if k.emotion == clip.face_emotion).name
        if typical not in {c.name for c in clip.cues if c.present}:
            named.append(any(c.name == typical for c in absent))
    assert low <= np.mean(named) <= high


def test_dominance_labels_a_clip_whose_voice_disagrees_by_its_face():
    clips = [clip_of(s, "") for s in plan_scenes(SPEC)]
    differ = [c for c in clips if c.face_emotion != c.voice_emotion]
    labelled = [captioned(c, random.Random(i), text_prior=0.0, dominance=0.5).emotion for i, c in enumerate(differ)]
    assert {e == c.face_emotion for e, c in zip(labelled, differ, strict=True) if e} == {True}
    assert 0.4 < np.mean([bool(e) for e in labelled]) < 0.6


def test_a_contact_sheet_shows_each_scene_in_its_cell():
    scenes = [sample_scene(f"x{i}", "train", 0, bias=0.9, mismatch=0.0) for i in range(COLUMNS + 1)]
    sheet = contact_sheet(scenes)
    assert (sheet[:SIZE, :SIZE] == draw_frames(scenes[0])[8]).all()
    assert (contact_sheet(scenes * 20).shape[0] / sheet.shape[0]) == MOST / COLUMNS / 2


def test_the_inventory_lists_every_cue_of_the_world_once():
    scene = sample_scene("x", "test", 0, bias=0.0, mismatch=0.5)
    cues = inventory(scene)
    assert sorted(c.name for c in cues) == sorted(CUE)
    assert {c.name for c in cues if c.present} == present_cues(scene)


def test_the_benchmark_is_balanced_between_yes_and_no_and_between_letters():
    clips = [clip_of(s, f"media/{s.scene_id}.mp4") for s in plan_scenes(SPEC) if s.split == "test"]
    items = list(benchmark_items(clips, seed=0))
    assert {i["task"] for i in items} == set(TASKS)
    for task in TASKS:
        answers = Counter(i["answer"] for i in items if i["task"] == task)
        assert len(answers) == (4 if "basic" in task else 2)
        assert max(answers.values()) / sum(answers.values()) < (0.4 if "basic" in task else 0.6)
    kinds = Counter(i["subtype"] for i in items if "stress" in i["task"])
    assert min(kinds[k] for k in ("spurious", "hallucination")) > 50


def test_a_scene_becomes_an_mp4_of_its_size_and_length(tmp_path: Path):
    import av

    scene = sample_scene("x", "train", 0, bias=0.9, mismatch=0.0)
    path = tmp_path / "x.mp4"
    write_clip(scene, path)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (SIZE, SIZE)
        assert audio.codec_context.sample_rate == RATE
        assert sum(1 for _ in container.decode(video)) == SECONDS * FPS


def test_face_and_voice_decide_the_emotion_together():
    agree = sample_scene("x", "train", 0, bias=0.9, mismatch=0.0)
    differ = sample_scene("y", "train", 0, bias=0.9, mismatch=1.0)
    assert clip_of(agree, "").emotion == agree.face == agree.voice
    assert clip_of(differ, "").emotion == ""
    assert differ.face != differ.voice
    assert all(a != b for a, b in itertools.combinations(EMOTIONS, 2))
