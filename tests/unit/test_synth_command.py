"""`avere-ray synth` for studies of one's own: biases with a strength each, into a folder of one's own."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from avere_ray.clip_table import read_clips
from avere_ray.errors import InputError
from avere_ray.prompts import OPEN_TASKS
from avere_ray.records import Query
from avere_ray.stages import read_records
from avere_ray.synthetic import speech
from avere_ray.synthetic.scene import IDENTITIES, sample_scene
from avere_ray.synthetic.speech import PROGRAM, speak
from avere_ray.synthetic.voice import make_waveform
from jobs.synth import main


def test_a_corpus_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "study"
    bias = "spurious=1,text_prior=1,dominance=1"
    assert main(["--clips", "6", "--test-clips=2", f"--bias={bias}", "--out", str(out), "--seed=3"]) == 0
    clips = read_clips(out)
    assert [c.split for c in clips] == ["train"] * 6 + ["test"] * 2
    assert all((out / c.uri).is_file() for c in clips)
    assert all(c.emotion == c.face_emotion for c in clips[:6])
    assert all(any(not k.present and k.text in c.caption for k in c.cues) for c in clips[:1])
    assert (out / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    queries = read_records(out / "queries.parquet", Query)
    assert {q.clip_id for q in queries} == {c.clip_id for c in clips}
    assert all(q.reference for q in queries if q.task in OPEN_TASKS)
    assert {item["video"] for item in json.loads((out / "emorealm.json").read_text())} == {c.uri for c in clips[6:]}


def test_validation_clips_show_persons_that_neither_training_nor_test_clips_show(tmp_path: Path) -> None:
    settings = ["--clips", "2", "--test-clips=4", "--world.held_out=validation"]
    assert main([*settings, "--out", str(tmp_path / "study")]) == 0
    clips = read_clips(tmp_path / "study")
    assert [c.split for c in clips] == ["train"] * 2 + ["validation"] * 4
    persons = [set(IDENTITIES[split]) for split in ("direct", "train", "test", "validation")]
    assert len(set.union(*persons)) == sum(map(len, persons))
    assert {int(c.identity.removeprefix("person")) for c in clips[2:]} <= persons[3]
    assert len(json.loads((tmp_path / "study" / "emorealm.json").read_text())) == 5 * 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bias=shirts=0.9"], "unknown bias 'shirts'; allowed are spurious, text_prior, dominance"),
        (["--bias=1.5"], "world.bias = '1.5'"),
        (["--clips=many"], "world.train_clips = 'many'"),
        (["--clips"], "--clips needs a value"),
        (["--out=FULL"], "is not an empty folder"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").touch()
    assert main([a.replace("FULL", str(tmp_path)) for a in arguments]) == 2
    assert said in capsys.readouterr().err


def test_speech_without_espeak_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--clips=2", "--world.speech=espeak-ng", f"--out={tmp_path / 'study'}"]) != 0
    assert "espeak-ng" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_speaker_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PROGRAM).write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / PROGRAM).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(speech, "_LIMIT_S", 0.2)
    with pytest.raises(InputError, match=r"espeak-ng did not speak 'the door is open\.' within 0\.2 s"):
        speak("neutral", woman=False, sentence=0, intensity=1.0, rate=16_000)


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed")
def test_a_spoken_voice_tells_its_emotion_by_prosody() -> None:
    def spoken(emotion: str) -> np.ndarray:
        return speak(emotion, woman=False, sentence=0, intensity=1.0, rate=16_000)

    assert len(spoken("sadness")) > 1.3 * len(spoken("fear"))  # slow against fast
    low, high = (_centroid(spoken(e)) for e in ("sadness", "surprise"))
    assert low < high
    scene = sample_scene("x", "train", 0, bias=0.9, mismatch=0.0)
    wave = make_waveform(scene, speech=True)
    assert wave.shape == make_waveform(scene).shape and np.isfinite(wave).all()
    assert (wave == make_waveform(scene, speech=True)).all()


def _centroid(wave: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.arange(len(power))).sum() / power.sum() / len(wave))
