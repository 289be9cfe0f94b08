"""A run on preference data that are there already: the clips it decodes, the pairs it keeps, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avere_ray.av_store import AvStore
from avere_ray.config import PairsConfig, RunConfig
from avere_ray.errors import DropBudgetExceeded, InputError, StageError
from avere_ray.formats import PreferenceData
from avere_ray.ledger import Ledger
from avere_ray.records import Clip, DecodedClip, Drop, Modality, ModalitySwap, PreferencePair
from avere_ray.stages import StageFolder, StageManifest, read_drops, read_records
from avere_ray.store import write_index, write_places
from jobs import given_pairs, synth
from jobs.corpus import read_corpus
from jobs.layout import stage_path
from jobs.preference_data import given_data

SEEN = "How does the person look?"
ROWS = [
    {"prompt": SEEN, "chosen": "Happy.", "rejected": "Sad.", "video": "a.mp4", "audio": "a.wav", "video_l": "b.mp4"},
    {"prompt": SEEN, "chosen": "Angry.", "rejected": "Calm.", "video": "c.mp4", "audio": "c.mp4"},
    {"prompt": SEEN, "chosen": "Angry.", "rejected": "Calm.", "video": "b.mp4", "audio": "b.mp4", "video_l": "c.mp4"},
    {"prompt": "What?", "chosen": "Angry.", "rejected": "Calm.", "video": "b.mp4", "audio": "b.mp4"},
    {"prompt": SEEN, "chosen": "", "rejected": "Calm.", "video": "b.mp4", "audio": "b.mp4"},
]


def config(folder: Path, rows: list[dict[str, str]] = ROWS, *, budget: float = 1.0, **pairs: Any) -> RunConfig:
    tagged = [{**row, "prompt": f"<video>\n<audio>\n{row['prompt']}"} for row in rows]
    (folder / "dpo.json").write_text(json.dumps(tagged))
    values = {"path": folder / "dpo.json", "media": folder / "media", **pairs}
    return RunConfig.model_validate(
        {"run_dir": folder / "run", "rounds": 1, "data": {"pairs": values, "drop_budget": budget}}
    )


def decoded(cfg: RunConfig, clips: list[Clip], lost: str) -> StageManifest:
    """A decode stage that lost the clip of one file."""
    stage = StageFolder(stage_path(cfg, "decoded"), stage="decode", key="k")
    stage.begin()
    store, kept = AvStore(cfg.run_dir.parent / "store"), [c for c in clips if not c.uri.endswith(lost)]
    frames, times, wave = np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.float32), np.zeros(4, np.float32)
    items = [
        (
            c.clip_id,
            1,
            DecodedClip(clip_id="", spec="s", frames=frames, frame_times_s=times, waveform=wave, duration_s=1),
        )
        for c in kept
    ]
    places = {c.clip_id: place for c, place in zip(kept, store.add("s", items), strict=True)}
    write_index(stage.path, kept, places)
    stage.write("clips", Clip, kept)
    drops = [
        Drop(sample_id=c.clip_id, stage="decode", reason="corrupt", message=f"{c.uri} is damaged")
        for c in clips
        if c not in kept
    ]
    manifest = stage.finish(inputs=len(clips), used=len(kept), drops=drops)
    write_places(stage.path, store, places)
    return manifest


def test_every_row_ends_as_a_pair_or_as_a_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = config(tmp_path)
    clips, _ = read_corpus(cfg, tmp_path)
    media = tmp_path / "media"
    assert {(c.uri, c.audio_uri) for c in clips} == {
        (str(media / "a.mp4"), str(media / "a.wav")),
        (str(media / "b.mp4"), ""),
        (str(media / "c.mp4"), ""),
    }
    stage = decoded(cfg, clips, "c.mp4")
    manifest = given_pairs.make_pairs(cfg, stage)
    assert (manifest.inputs, manifest.used, manifest.dropped) == (5, 1, 4)
    folder = stage_path(cfg, "pairs", 0)
    (pair,) = read_records(folder / "pairs.parquet", PreferencePair)
    assert (pair.chosen, pair.modality, pair.swap and pair.swap.modality) == ("Happy.", "video", "video")
    reasons = [drop.reason for drop in read_drops(folder)]
    assert sorted(reasons) == ["bad_row", "clip_corrupt", "clip_corrupt", "modality_unclear"]
    assert "dpo.json row 2" in next(d.message for d in read_drops(folder) if d.reason == "clip_corrupt")
    assert manifest.summary["pairs"] == 1
    assert given_pairs.make_pairs(cfg, stage) == manifest
    assert "reused" in capsys.readouterr().out


def test_settings_decide_what_rows_leave_open(tmp_path: Path) -> None:
    cfg = config(tmp_path, ROWS[2:4], unclear="audio", reject_kinds=["spurious"])
    stage = decoded(cfg, read_corpus(cfg, tmp_path)[0], "none")
    given_pairs.make_pairs(cfg, stage)
    pairs = read_records(stage_path(cfg, "pairs", 0) / "pairs.parquet", PreferencePair)
    assert [p.modality for p in pairs] == ["video", "audio"]
    assert {r.kind.value for p in pairs for r in p.rejects} == {"spurious"}


def test_mismatched_inputs_replace_what_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard = "How does the person sound?"
    rows = [
        {**ROWS[0], "prompt": heard},  # replaces the picture alone
        {**ROWS[0], "prompt": heard, "audio_l": "c.wav", "chosen": "Glad."},  # replaces both
        {**ROWS[0], "chosen": "Joyful."},
    ]
    cfg = config(tmp_path, rows)
    manifest = given_pairs.make_pairs(cfg, decoded(cfg, read_corpus(cfg, tmp_path)[0], "none"))
    found = read_records(stage_path(cfg, "pairs", 0) / "pairs.parquet", PreferencePair)
    assert [(p.modality, p.swap and p.swap.modality) for p in found] == [
        ("audio", None), ("audio", "audio"), ("video", "video")
    ]  # fmt: skip
    narrowed = found[1].swap
    assert narrowed is not None and narrowed.video_clip_id == found[1].clip_id != narrowed.audio_clip_id
    assert (manifest.summary["swaps_narrowed"], manifest.summary["swaps_left_out"]) == (1, 1)
    assert "left out are 1 that replaced only the other one" in capsys.readouterr().out.replace("\n", " ")


def test_a_mismatched_input_that_shows_the_same_emotion_is_left_out() -> None:
    clips = {
        name: Clip(clip_id=name, uri=f"{name}.mp4", face_emotion=face, voice_emotion=voice)
        for name, face, voice in (("own", "anger", "anger"), ("alike", "angry", "fear"), ("other", "fear", "anger"))
    }
    swaps = {
        (modality, partner): PreferencePair(
            pair_id=f"{modality}/{partner}", query_id="q", clip_id="own", prompt="?", modality=modality, chosen="a",
            chosen_source="data", rejects=(), swap=_swap_to(partner, modality),
        )
        for modality in ("audio", "video", "audio_video") for partner in ("alike", "other", "unknown")
    }  # fmt: skip
    found, changed = given_pairs.fitting(list(swaps.values()), clips)
    left_out = {key for key, pair in zip(swaps, found, strict=True) if pair.swap is None}
    assert left_out == {("video", "alike"), ("audio", "other")}
    assert changed == {"swaps_narrowed": 0, "swaps_left_out": 0, "swaps_of_one_emotion": 2}


def _swap_to(partner: str, modality: Modality) -> ModalitySwap:
    return ModalitySwap(modality=modality, strategy="given",
                        audio_clip_id="own" if modality == "video" else partner,
                        video_clip_id="own" if modality == "audio" else partner)  # fmt: skip


def test_the_drop_budget_and_an_empty_result_stop_the_run(tmp_path: Path) -> None:
    cfg = config(tmp_path, budget=0.5)
    stage = decoded(cfg, read_corpus(cfg, tmp_path)[0], "c.mp4")
    with pytest.raises(DropBudgetExceeded, match=r"4 of 5.*clip_corrupt.*data\.drop_budget"):
        given_pairs.make_pairs(cfg, stage)
    cfg = config(tmp_path, ROWS[1:2])
    with pytest.raises(StageError, match="no pair that can be trained on"):
        given_pairs.make_pairs(cfg, decoded(cfg, read_corpus(cfg, tmp_path)[0], "c.mp4"))


def test_rows_that_cannot_be_used_stop_the_run_before_anything_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(DropBudgetExceeded, match=r"dropped 2 of 5.*data\.drop_budget"):
        read_corpus(config(tmp_path, budget=0.2), tmp_path)
    with pytest.raises(InputError, match=r"dpo\.json, which has 2 rows, can be used.*For instance .*row \d"):
        read_corpus(config(tmp_path, ROWS[3:]), tmp_path)


def test_no_clips_are_drawn_and_a_missing_file_is_named(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    assert synth.run(cfg) is None
    (tmp_path / "dpo.json").unlink()
    with pytest.raises(InputError, match=r"dpo\.json does not exist.*data\.pairs\.path"):
        read_corpus(cfg, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 2}, "rounds"),
        ({"data": {"pairs": {"path": "x.json"}, "clips": "folder"}}, "data.clips"),
        ({"data": {"pairs": {"path": "x.json"}, "queries": "q.parquet"}}, "data.queries"),
    ],
)
def test_settings_that_contradict_given_pairs_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RunConfig.model_validate({"rounds": 1, "data": {"pairs": {"path": "x.json"}}, **changes})


def test_a_row_that_is_lost_without_a_reason_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path)
    clips, _ = read_corpus(cfg, tmp_path)
    manifest = decoded(cfg, clips, "none")

    def losing(pairs: PairsConfig, ledger: Ledger) -> PreferenceData:
        data = given_data(pairs, ledger)
        data.pairs.pop()
        return data

    monkeypatch.setattr(given_pairs, "given_data", losing)
    with pytest.raises(StageError, match=r"5 inputs but 2 used and 2 dropped"):
        given_pairs.make_pairs(cfg, manifest)
