"""A run reads its corpus and accounts for what it cannot use."""

from pathlib import Path

import pytest

from avere_ray.av_store import AvStore
from avere_ray.config import RunConfig, SourceConfig, load_config
from avere_ray.data import decode_stage
from avere_ray.errors import ConfigError, DropBudgetExceeded, InputError, StageError
from avere_ray.sources import Found, read_source
from avere_ray.stages import StageFolder, read_drops, read_manifest
from jobs import corpus
from jobs.corpus import check_annotations, find_clips, read_corpus


def config(root: Path, *overrides: str) -> RunConfig:
    return load_config(
        None,
        [f"--data.clips={root / 'corpus'}", f"--run_dir={root / 'run'}", "--data.source.kind=crema_d", *overrides],
    )


def video(root: Path, name: str) -> None:
    path = root / "corpus/VideoFlash" / f"{name}.flv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"FLV")


def test_drops_are_stored_and_held_against_the_budget(tmp_path: Path) -> None:
    for name in ("1001_DFA_ANG_XX", "1002_IEO_SAD_HI", "stray", "another"):
        video(tmp_path, name)
    with pytest.raises(DropBudgetExceeded, match=r"source dropped 2 of 4.*2 x bad_name.*VideoFlash/another\.flv"):
        read_corpus(config(tmp_path), tmp_path / "corpus")
    clips, root = read_corpus(config(tmp_path, "--data.drop_budget=0.5"), tmp_path / "corpus")
    assert [c.identity for c in clips] == ["crema_d-actor-1001", "crema_d-actor-1002"]
    assert root == tmp_path / "corpus"
    manifest = read_manifest(tmp_path / "run/source")
    assert manifest is not None
    assert (manifest.inputs, manifest.used, manifest.dropped) == (4, 2, 2)
    assert manifest.summary["emotions"] == {"anger": 1, "sadness": 1}
    assert {d.reason for d in read_drops(tmp_path / "run/source")} == {"bad_name"}


def test_a_corpus_of_which_nothing_can_be_used_is_refused_and_its_drops_kept(tmp_path: Path) -> None:
    video(tmp_path, "stray")
    with pytest.raises(InputError, match=r"corpus, which lists 1 clips, can be used: \{'bad_name': 1\}\. For instance"):
        read_corpus(config(tmp_path, "--data.drop_budget=1.0"), tmp_path / "corpus")
    assert [drop.reason for drop in read_drops(tmp_path / "run/source")] == ["bad_name"]


def test_no_clips_at_all_are_refused_before_ray_is_asked(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "decoded", stage="decode", key="k")
    with pytest.raises(StageError, match="was given no clips"):
        decode_stage([], tmp_path, config(tmp_path).data, AvStore(tmp_path / "store"), folder, lambda done, of: None)
    assert not folder.path.exists()


def check_clips(cfg: RunConfig) -> None:
    assert cfg.data.clips is not None
    check_annotations(cfg, find_clips(cfg, cfg.data.clips).clips)


def test_what_judge_and_swaps_need_is_looked_for_before_anything_is_sampled(tmp_path: Path) -> None:
    video(tmp_path, "1001_DFA_ANG_XX")
    with pytest.raises(InputError, match=r"no annotated cues.*judge\.backend: it has labels alone, so llm"):
        check_clips(config(tmp_path))
    other_judge = ("--judge.backend=omni", "--judge.model_path=somewhere")
    with pytest.raises(InputError, match=r"only the emotion 'anger'.*set preference\.swap"):
        check_clips(config(tmp_path, *other_judge))
    check_clips(config(tmp_path, *other_judge, "--preference.swap=noise"))
    video(tmp_path, "1002_IEO_SAD_HI")
    check_clips(config(tmp_path, *other_judge))


def test_the_stored_result_follows_the_corpus(tmp_path: Path) -> None:
    video(tmp_path, "1001_DFA_ANG_XX")
    read_corpus(config(tmp_path), tmp_path / "corpus")
    before = read_manifest(tmp_path / "run/source")
    read_corpus(config(tmp_path), tmp_path / "corpus")
    assert read_manifest(tmp_path / "run/source") == before
    video(tmp_path, "1001_DFA_HAP_XX")
    read_corpus(config(tmp_path), tmp_path / "corpus")
    after = read_manifest(tmp_path / "run/source")
    assert before is not None and after is not None and (before.used, after.used) == (1, 2)


def test_a_listed_clip_that_is_lost_without_a_reason_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video(tmp_path, "1001_DFA_ANG_XX")
    video(tmp_path, "1001_DFA_HAP_XX")

    def losing(path: Path, cfg: SourceConfig) -> Found:
        found = read_source(path, cfg)
        found.clips.pop()
        return found

    monkeypatch.setattr(corpus, "read_source", losing)
    with pytest.raises(StageError, match="2 inputs but 1 used and 0 dropped"):
        corpus.read_corpus(config(tmp_path), tmp_path / "corpus")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--data.source.kind=dfew"], "data.clips is not set"),
        (["--data.clips=x", "--data.source.columns=uri=path"], "data.source.columns is for data.source.kind manifest"),
        (["--data.clips=x", "--data.source.kind=ravdes"], "ravdes"),
        (["--data.clips=x", "--data.source.fold=6"], "fold"),
    ],
)
def test_a_contradictory_source_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)
