"""Stage folders: finished or not, never half-written, every input accounted for."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avere_ray.errors import StageError, StorageError
from avere_ray.ledger import Ledger
from avere_ray.records import Clip, Drop
from avere_ray.stages import (
    MANIFEST,
    StageFolder,
    atomic_path,
    digest,
    file_digest,
    full_disk_named,
    read_drops,
    read_manifest,
    read_records,
    write_json,
    write_records,
    write_text,
)

CLIPS = [Clip(clip_id=f"c{i}", uri=f"c{i}.mp4") for i in range(3)]
DROP = Drop(sample_id="c9", stage="decode", reason="no_audio_stream", message="clip c9 has no audio")


def stage(path: Path, key: str = "k1") -> StageFolder:
    folder = StageFolder(path / "decoded", stage="decode", key=key)
    folder.begin()
    return folder


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_stage_is_finished_only_with_its_manifest_and_its_key(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.write("clips", Clip, CLIPS)
    assert folder.finished() is None
    manifest = folder.finish(inputs=4, used=3, drops=[DROP], summary={"frames": 12})
    assert folder.finished() == manifest
    assert StageFolder(folder.path, stage="decode", key="k2").finished() is None
    assert (manifest.dropped, manifest.summary, sorted(manifest.files)) == (
        1,
        {"frames": 12},
        ["clips.parquet", "drops.parquet"],
    )
    assert manifest.files["clips.parquet"] == file_digest(folder.path / "clips.parquet")
    assert (folder.read("clips", Clip), read_drops(folder.path)) == (CLIPS, [DROP])


def test_beginning_again_removes_what_was_there(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.write("clips", Clip, CLIPS)
    folder.finish(inputs=3, used=3)
    stage(tmp_path, key="k2")
    assert names(folder.path) == []


def test_the_output_digest_follows_the_files_and_nothing_else(tmp_path: Path) -> None:
    digests = []
    for i, clips in enumerate([CLIPS, CLIPS, CLIPS[:2]]):
        folder = stage(tmp_path / str(i), key=f"key {i}")
        folder.write("clips", Clip, clips)
        digests.append(folder.finish(inputs=len(clips), used=len(clips)).output_digest)
    assert digests[0] == digests[1] != digests[2]


def test_the_output_digest_follows_which_inputs_were_dropped_and_not_the_words(tmp_path: Path) -> None:
    digests = []
    for i, name, words in ((0, "a", "503 after 1 s"), (1, "a", "503 after 2 s"), (2, "b", "503 after 1 s")):
        folder = stage(tmp_path / str(i))
        drop = Drop(sample_id=name, stage="decode", reason="remote_unreachable", message=words)
        digests.append(folder.finish(inputs=1, used=0, drops=[drop]).output_digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("inputs", "used", "drops"), [(4, 3, []), (3, 3, [DROP]), (2, 3, [])])
def test_an_input_cannot_be_lost_without_a_reason(tmp_path: Path, inputs: int, used: int, drops: list[Drop]) -> None:
    folder = stage(tmp_path)
    with pytest.raises(StageError, match=f"{inputs} inputs but {used} used and {len(drops)} dropped"):
        folder.finish(inputs=inputs, used=used, drops=drops)
    assert names(folder.path) == []


def test_an_interrupted_write_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as partial:
        partial.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a.json"]
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_killed_write_leaves_the_old_state_and_the_next_write_recovers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from avere_ray.stages import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=50, check=False)
    assert (done.returncode, path.read_text()) == (-signal.SIGKILL, "old")
    write_text(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.txt"])


def _finish(folder: StageFolder) -> object:
    return folder.finish(inputs=0, used=0)


def _write(folder: StageFolder) -> object:
    return folder.write("clips", Clip, CLIPS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without space")
@pytest.mark.parametrize(("name", "write"), [(MANIFEST, _finish), ("clips.parquet", _write)])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, name: str, write: Callable[[StageFolder], object]
) -> None:
    folder = stage(tmp_path)
    (folder.path / f"{name}.partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=f"{name}: the disk is full. Free some space, or set run_dir"):
        write(folder)
    assert names(folder.path) == []
    assert folder.finished() is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without space")
@pytest.mark.parametrize("library", ["torch", "none"])
def test_a_full_disk_is_named_whatever_a_library_says_of_it(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    (tmp_path / "x").symlink_to("/dev/full")
    if library == "torch":  # says nothing of the disk, so that is looked at
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    save = {"torch": torch.save, "none": lambda weights, path: path.write_bytes(b"1")}[library]
    words = f"cannot write {tmp_path}: the disk is full. Free some space"
    with pytest.raises(StorageError, match=words), full_disk_named(tmp_path):
        save({"a": torch.zeros(100_000)}, tmp_path / "x")


def test_a_full_disk_is_known_by_what_safetensors_says(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(StorageError, match="the disk is full"), full_disk_named(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_an_error_that_is_none_of_the_disk_s_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), full_disk_named(tmp_path / "not" / "there"):
        raise RuntimeError("something else")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        write_text(tmp_path / "sub" / "a.txt", "a")


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageError, match=r"run/decoded"):
        stage(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "decode"}', '{"other": 1}'])
def test_a_broken_manifest_says_what_to_delete(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=f"Delete the folder {tmp_path}"):
        read_manifest(tmp_path)


def test_a_broken_table_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_bytes(b"PAR1 but not really")
    for name in ("clips.parquet", "missing.parquet"):
        with pytest.raises(StageError, match=f"Delete the folder {tmp_path}"):
            read_records(tmp_path / name, Clip)


def test_a_table_of_other_records_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "drops.parquet", Drop, [DROP])
    with pytest.raises(StageError, match="cannot read Clip records"):
        read_records(tmp_path / "drops.parquet", Clip)


def test_a_digest_depends_on_values_not_on_key_order() -> None:
    assert digest({"a": 1, "b": Path("x")}) == digest({"b": Path("x"), "a": 1})
    assert len({digest(1), digest("1"), digest(1, 1), digest([1]), digest()}) == 5


def test_a_ledger_s_drops_are_what_the_manifest_counts(tmp_path: Path) -> None:
    ledger = Ledger("decode")
    ledger.drop("c1", "no_audio_stream", "clip c1 has no audio", size=12)
    manifest = stage(tmp_path).finish(inputs=1, used=0, drops=ledger.drops)
    assert (manifest.dropped, read_drops(tmp_path / "decoded")) == (1, ledger.drops)
