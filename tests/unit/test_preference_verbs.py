"""convert, inspect and validate as a user types them, on real mp4 files."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avere_ray.config import DataConfig
from avere_ray.records import Clip, DecodedClip
from avere_ray.strip import GAP, WAVE_HEIGHT, strip_image, write_png
from avere_ray.synthetic.clips import CorpusSpec, plan_scenes, write_clip
from jobs import convert, inspect, validate

ASKED = "How does the facial expression show anger?"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number, scene in enumerate(plan_scenes(CorpusSpec(seed=0, train_clips=2, test_clips=0, bias=0.9)), start=1):
        write_clip(scene, folder / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes((folder / "1.mp4").read_bytes()[:900])
    return folder


def row(video: str = "1.mp4", other: str = "2.mp4", asked: str = ASKED, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"<video><audio>{asked}"}, {"role": "assistant", "content": "Low brows."}]
    return {
        "messages": messages,
        "rejected_response": "Tears.",
        "videos": [video],
        "rejected_videos": [other],
        **fields,
    }


def data(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "swift.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_convert_through_every_format(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ["native", "a.json", "t.jsonl", "v.parquet", "s.jsonl"]
    source = data(tmp_path, row())
    names = ["avere_ray", "avere", "trl", "verl_omni", "swift"]
    for name, form in zip(steps, names, strict=True):
        assert convert.main([source, str(tmp_path / name), "--to", form, "--media", str(media)]) == 0
        source = str(tmp_path / name)
        assert f"1 pairs in {2 if form == 'swift' else 1} rows" in capsys.readouterr().out
    first = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    assert (first["videos"], first["rejected_response"]) == ([str(media / "1.mp4")], "Tears.")


def test_convert_says_what_it_decided_and_what_it_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data(tmp_path, row(), row(videos=[]))
    assert convert.main([source, str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1 by rules. --modality overrides it" in out
    assert "hallucinated, spurious. --reject-kinds overrides it" in out
    assert "1 rows dropped" in out and "swift.jsonl line 2" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{file}"], 2, "give FROM TO"),
        (["{file}", "{out}", "x"], 2, "give FROM TO"),
        (["{file}", "{out}.json"], 2, "name its format with --to"),
        (["{file}", "{out}.json", "--to", "llama"], 2, "--to llama: allowed are avere_ray, "),
        (["{file}", "{out}.txt", "--to", "trl"], 2, "trl is written to"),
        (["{file}", "{file}", "--to", "swift"], 2, "exists; give another name"),
        (["gone.json", "{out}"], 2, "gone.json does not exist"),
        (["{file}", "{out}", "--modality", "smell"], 2, "allowed are audio, video, audio_video"),
        (["{file}", "{out}", "--reject-kinds", "bad"], 2, "allowed are spurious, hallucinated"),
        (["{file}", "{out}", "--to"], 2, "--to needs a value"),
        (["{file}", "{out}", "--too=trl"], 2, "--too=trl"),
        (["{file}", "{out}", "--data.drop_budget=0"], 3, "drop_budget 0 allows 0"),
        (["{file}", "{out}", "--from=avere"], 3, "field prompt"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    file = data(tmp_path, row(), row(videos=[]))
    given = [a.format(file=file, out=tmp_path / "out") for a in arguments]
    assert convert.main(given) == code
    assert words in last_error(capsys)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.timeout(180)  # the first test to use transformers pays for its import
def test_inspect_shows_prompt_responses_and_media(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data(tmp_path, row(videos=[]), row())
    picture = tmp_path / "pair.png"
    assert inspect.main([source, "--row=2", "--media", str(media), "--out", str(picture)]) == 0
    out = capsys.readouterr().out
    assert f"<|AUDIO|><|audio_eos|>{ASKED}<|im_end|>" in out
    assert "asks about: video (confidence 0.95)" in out
    assert "chosen (data): Low brows." in out and "rejected, hallucinated (data): Tears." in out
    assert "mismatched input (data, video)" in out and "2.00 s, 4 frames, 32000 samples" in out
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (4 * 84 + 3 * GAP, 2 * (84 + WAVE_HEIGHT) + 3 * GAP)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--row=9"], "pairs begin at rows 1"), (["--row=2"], "row 2 cannot be used"),
     (["--row=x"], "--row x is no row number"), ([], "corrupt"), (["--media=gone"], "does not exist")],
)  # fmt: skip
def test_inspect_says_what_is_wrong(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = data(tmp_path, row("broken.mp4"), row(videos=[]))
    named = [] if any(a.startswith("--media") for a in arguments) else [f"--media={media}"]
    assert inspect.main([source, *named, "--model.path=gone", *arguments]) == 2
    error = last_error(capsys)
    assert words in error or (words == "corrupt" and "damaged" in error)
    assert not list(tmp_path.glob("*.png"))


def test_validate_preference_data(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data(tmp_path, row(), row("broken.mp4"), row("gone.mp4"), row(videos=[]), row("2.mp4", "broken.mp4"))
    common = [source, f"--media={media}", "--workers=1"]
    assert validate.main([*common, "--data.drop_budget=0.9"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "read 5 4 1 1 x no_media" in out
    assert "decode 4 2 2" in out and "file_missing" in out and "corrupt" in out
    assert "pairs 4 1 3" in out
    assert "1 of 4 pairs can be used" in out
    assert validate.main([*common, "--data.drop_budget=0.1"]) == 3
    assert "Repair or remove these inputs" in last_error(capsys)
    assert validate.main([*common, "--no-decode", "--data.drop_budget=0.9"]) == 0
    assert "2 of 4 pairs" not in capsys.readouterr().out


def test_validate_a_corpus(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Actor_01"
    folder.mkdir()
    for name, file in (("01-01-03-01-01-01-01", "1.mp4"), ("01-01-05-01-01-01-01", "broken.mp4")):
        (folder / f"{name}.mp4").write_bytes((media / file).read_bytes())
    assert validate.main([str(tmp_path), "--data.source.kind=ravdess", "--workers=1"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "2 clips of ravdess: 1 happiness, 1 anger" in out
    assert "source 2 2 0" in out and "decode 2 1 1 1 x corrupt" in out
    assert "1 of 2 clips can be used" in out


@pytest.mark.parametrize("decoding", [[], ["--no-decode"]])
def test_validate_counts_a_file_that_cannot_be_examined(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str], decoding: list[str]
) -> None:
    source = data(tmp_path, row(), row("x" * 300 + ".mp4"))
    assert validate.main([source, f"--media={media}", "--workers=1", "--data.drop_budget=0.9", *decoding]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"{'media' if decoding else 'decode'} 3 2 1 1 x unreadable" in out
    assert "1 of 2 pairs can be used" in out


@pytest.mark.parametrize("audio", ["", "gone.wav"])
def test_a_drop_of_validate_has_the_bytes_of_its_file(media: Path, audio: str) -> None:
    drop = validate.check_media((Clip(clip_id="c", uri="broken.mp4", audio_uri=audio), media), DataConfig())
    assert drop is not None
    assert (drop.stage, drop.reason, drop.bytes) == ("decode", "file_missing" if audio else "corrupt", 900)


def test_png_holds_the_pixels(tmp_path: Path) -> None:
    clip = DecodedClip(
        clip_id="c", spec="s", frames=np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3),
        frame_times_s=np.zeros(2, np.float32), duration_s=1.0,
        waveform=np.concatenate([np.zeros(50, np.float32), np.full(50, 0.9, np.float32)]))  # fmt: skip
    image = strip_image([clip])
    assert np.array_equal(image[:4, :6], clip.frames[0]) and np.array_equal(image[:4, 6 + GAP :], clip.frames[1])
    wave = image[4 + GAP :] < 100
    assert not wave[:, :7].any() and wave[:, -6:].any()
    write_png(tmp_path / "a.png", image)
    raw = (tmp_path / "a.png").read_bytes()
    size = struct.unpack(">I", raw[33:37])[0]
    lines = np.frombuffer(zlib.decompress(raw[41 : 41 + size]), np.uint8).reshape(image.shape[0], -1)
    assert np.array_equal(lines[:, 1:].reshape(image.shape), image) and not lines[:, 0].any()
