"""The decode stage over real files with real Ray Data."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from clipmaker import Recipe, number_of, write_clip
from fileserver import file_server

from avere_ray.arrow import from_table
from avere_ray.av_store import PINS, AvStore
from avere_ray.config import DataConfig, DecodeConfig, RayConfig, RemoteConfig, RunConfig
from avere_ray.data import decode_stage, decoded_dataset
from avere_ray.errors import DropBudgetExceeded, StageError
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import StageFolder, StageManifest, file_digest, read_drops, write_records
from avere_ray.store import DecodedStore
from benchmarks import scale
from jobs import decode as job

pytestmark = pytest.mark.usefixtures("local_ray")

GOOD = [f"good{n}" for n in range(8)]
BAD = {"corrupt": "corrupt", "silent": "no_audio_stream", "absent": "file_missing", "empty": "empty_file"}
SPEC = DecodeConfig(frames=2, height=56, width=56, timeout_s=20.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 good clips and 4 bad ones among them, with their table."""
    root = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(GOOD):
        write_clip(root / f"{name}.mp4", Recipe(tones_hz=(300.0 + 50 * number,)))
    write_clip(root / "silent.mp4", Recipe(with_audio=False))
    (root / "corrupt.mp4").write_bytes((root / "good0.mp4").read_bytes()[:3000])
    (root / "empty.mp4").touch()
    names = sorted([*GOOD, *BAD], key=lambda name: file_order(name))
    write_records(root / "clips.parquet", Clip, [Clip(clip_id=n, uri=f"{n}.mp4", split="train") for n in names])
    return root


def file_order(name: str) -> int:
    """A mixed order that is not the alphabetical one."""
    return sum(name.encode()) % 7


def config(corpus: Path, run: Path, **data: Any) -> RunConfig:
    return RunConfig(
        run_dir=run,
        data=DataConfig(clips=corpus, decode=SPEC, **{"store": run / "store", **data}),
        ray=RayConfig(num_cpus=2, object_store_mb=128),
    )


def decode_files(root: Path, names: list[str], folder: Path, **limits: float) -> StageManifest:
    clips = [Clip(clip_id=name, uri=f"{name}.mp4") for name in names]
    cfg = DataConfig(decode=SPEC.model_copy(update=limits), drop_budget=1.0)
    stage = StageFolder(folder, stage="decode", key="k")
    return decode_stage(clips, root, cfg, AvStore(folder.parent / "store"), stage, lambda done, total: None)


def test_every_clip_is_used_or_dropped_with_its_reason(corpus: Path, tmp_path: Path) -> None:
    manifest = job.run(config(corpus, tmp_path, drop_budget=0.5))
    assert (manifest.inputs, manifest.used, manifest.dropped) == (12, 8, 4)
    drops = read_drops(tmp_path / "decoded")
    assert {d.sample_id: d.reason for d in drops} == BAD
    assert {d.sample_id: d.bytes for d in drops}["corrupt"] == 3000
    assert all(f"{d.sample_id}.mp4" in d.message for d in drops)


def test_the_store_holds_the_clips(corpus: Path, tmp_path: Path) -> None:
    job.run(config(corpus, tmp_path, drop_budget=0.5))
    store = DecodedStore(tmp_path / "decoded")
    assert sorted(store.ids()) == GOOD
    assert [c.clip_id for c in store.clips()] == store.ids()
    assert {c.clip_id: c.sha256 for c in store.clips()} == {n: file_digest(corpus / f"{n}.mp4") for n in GOOD}
    clip = store["good3"]
    assert [number_of(frame) for frame in clip.frames] == [5, 15]
    spectrum = np.abs(np.fft.rfft(clip.waveform))
    assert spectrum.argmax() / 2 == pytest.approx(450, abs=1)


def test_two_runs_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    one = job.run(config(corpus, tmp_path / "one", drop_budget=0.5))
    two = job.run(config(corpus, tmp_path / "two", drop_budget=0.5))
    assert one.files == two.files
    assert one.output_digest == two.output_digest


def test_a_second_run_reuses_the_first(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = job.run(config(corpus, tmp_path, drop_budget=0.5))
    capsys.readouterr()
    store = AvStore(tmp_path / "store")
    held = store.owners()
    shutil.rmtree(store.folder / PINS)  # as if another run had taken this one for gone
    assert job.run(config(corpus, tmp_path, drop_budget=0.5)) == one
    assert "reused" in capsys.readouterr().out
    assert store.owners() == held != {}


def test_the_drop_budget_stops_the_run_and_nothing_is_decoded_again(corpus: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DropBudgetExceeded, match=r"4 of 12.*no_audio_stream"):
            job.run(config(corpus, tmp_path, drop_budget=0.1))
    shards = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.parquet")}
    assert job.run(config(corpus, tmp_path, drop_budget=0.5)).used == 8
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.parquet")} == shards


def test_a_server_that_was_away_costs_a_clip_for_one_attempt_alone(corpus: Path, tmp_path: Path) -> None:
    with file_server() as server:
        server.files["/v.mp4"] = (corpus / "good1.mp4").read_bytes()
        server.answers["/v.mp4"] = [503]
        (tmp_path / "in").mkdir()
        shutil.copy(corpus / "good0.mp4", tmp_path / "in/a.mp4")
        clips = [Clip(clip_id="a", uri="a.mp4"), Clip(clip_id="v", uri=f"http://{server.host}/v.mp4")]
        write_records(tmp_path / "in/clips.parquet", Clip, clips)
        remote = RemoteConfig(http_hosts=(server.host,), attempts=1)
        cfg = config(tmp_path / "in", tmp_path / "run", remote=remote, drop_budget=0.5)
        assert job.run(cfg).summary["drops"] == {"remote_unreachable": 1}
        used = StageFolder(tmp_path / "run/rollouts/round=0", stage="rollouts", key="k")
        used.begin()
        used.finish(inputs=0, used=0)
        assert job.run(cfg).used == 1
        shutil.rmtree(used.path)
        manifest = job.run(cfg)
    assert (manifest.used, manifest.summary["decoded"], manifest.summary["found"]) == (2, 1, 1)


def test_another_run_of_the_project_decodes_nothing(corpus: Path, tmp_path: Path) -> None:
    one = job.run(config(corpus, tmp_path / "one", drop_budget=0.5, store=tmp_path / "store"))
    two = job.run(config(corpus, tmp_path / "two", drop_budget=0.5, store=tmp_path / "store"))
    assert [(m.summary["decoded"], m.summary["found"]) for m in (one, two)] == [(8, 0), (0, 8)]
    assert one.output_digest == two.output_digest
    clip, other = (DecodedStore(tmp_path / name / "decoded")["good5"] for name in ("one", "two"))
    np.testing.assert_array_equal(clip.frames, other.frames)


def test_the_measurement_of_scale_decodes_once_and_watches_both_passes(tmp_path: Path) -> None:
    figures = scale.measure(tmp_path, 6, cpus=2)
    assert (figures["clips"], figures["again_decoded"]) == (6, 0)
    assert min(figures[name] for name in ("peak_rss_bytes", "peak_driver_bytes", "store_bytes", "seconds")) > 0


def test_what_the_store_has_lost_is_decoded_again_and_nothing_else_changes(corpus: Path, tmp_path: Path) -> None:
    one = job.run(config(corpus, tmp_path, drop_budget=0.5))
    lost = sorted((tmp_path / "store").rglob("*.parquet"))[0]
    lost.unlink()
    two = job.run(config(corpus, tmp_path, drop_budget=0.5))
    assert two.summary["decoded"] == 8 - two.summary["found"] > 0
    assert two.output_digest == one.output_digest
    assert len(DecodedStore(tmp_path / "decoded")["good0"].frames) == 2


def test_decoded_clips_stream_in_order(corpus: Path, tmp_path: Path) -> None:
    job.run(config(corpus, tmp_path, drop_budget=0.5))
    store = DecodedStore(tmp_path / "decoded")
    stream = decoded_dataset(tmp_path / "decoded", block=3).iter_batches(batch_size=2, batch_format="pyarrow")
    clips = [clip for table in stream for clip in from_table(DecodedClip, table)]
    assert [c.clip_id for c in clips] == store.ids()
    np.testing.assert_array_equal(clips[4].waveform, store[clips[4].clip_id].waveform)


def test_nothing_decodable_is_an_error(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="none of the 1 clips"):
        decode_files(corpus, ["silent"], tmp_path / "decoded")


def test_a_clip_that_hangs_costs_only_itself(corpus: Path, tmp_path: Path, hanging: str) -> None:
    manifest = decode_files(corpus, ["good0", hanging, "good1"], tmp_path / "decoded", timeout_s=3.0)
    assert manifest.summary["drops"] == {"timeout": 1}
    assert DecodedStore(tmp_path / "decoded").ids() == ["good0", "good1"]


def test_a_decoder_that_dies_costs_only_its_clip(corpus: Path, tmp_path: Path, hanging: str) -> None:
    killer = threading.Thread(target=kill_reader, args=(corpus / f"{hanging}.mp4", time.monotonic() + 60))
    killer.start()
    manifest = decode_files(corpus, ["good0", hanging, "good1"], tmp_path / "decoded", timeout_s=60.0)
    killer.join()
    assert manifest.summary["drops"] == {"decoder_crashed": 1}
    assert "SIGKILL" in read_drops(tmp_path / "decoded")[0].message
    assert DecodedStore(tmp_path / "decoded").ids() == ["good0", "good1"]


@pytest.fixture
def hanging(corpus: Path) -> Iterator[str]:
    """A named pipe instead of a file: opening it waits for ever."""
    path = corpus / "hanging.mp4"
    os.mkfifo(path)
    yield "hanging"
    path.unlink()


def kill_reader(pipe: Path, deadline: float) -> None:
    """Ends the process of ours that reads the pipe, by its id."""
    while time.monotonic() < deadline:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
            continue
        while time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                if reads(process, pipe):
                    process.send_signal(signal.SIGKILL)
                    os.close(writer)
                    return
            time.sleep(0.05)


def reads(process: psutil.Process, pipe: Path) -> bool:
    try:
        links = list(Path(f"/proc/{process.pid}/fd").iterdir())
        return any(os.readlink(link) == str(pipe) for link in links)
    except OSError:
        return False
