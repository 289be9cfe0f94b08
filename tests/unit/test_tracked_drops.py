"""MLflow is told of every stage how many inputs it dropped, and for which reasons."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from avere_ray.config import RunConfig, load_config
from avere_ray.ledger import Ledger
from avere_ray.records import Clip
from avere_ray.stages import StageFolder, StageManifest
from jobs.corpus import read_corpus
from jobs.layout import finished, stage_path
from jobs.tracked import Log


def config(root: Path, *overrides: str) -> RunConfig:
    return load_config(None, [f"--data.clips={root / 'corpus'}", f"--run_dir={root / 'run'}", *overrides])


def corpus(root: Path) -> RunConfig:
    """A corpus with one good file and two of wrong names, read."""
    folder = root / "corpus/VideoFlash"
    folder.mkdir(parents=True)
    for name in ("1001_DFA_ANG_XX", "stray", "another"):
        (folder / f"{name}.flv").write_bytes(b"FLV")
    cfg = config(root, "--data.source.kind=crema_d", "--data.drop_budget=1.0")
    read_corpus(cfg, root / "corpus")
    return cfg


def decoded(cfg: RunConfig) -> StageManifest:
    """A decode stage that used one clip of four."""
    ledger = Ledger("decode")
    for clip, reason in (("a", "corrupt"), ("b", "corrupt"), ("c", "timeout")):
        ledger.drop(clip, reason, f"{clip} cannot be used")
    folder = StageFolder(stage_path(cfg, "decoded"), stage="decode", key="k")
    folder.begin()
    folder.write("clips", Clip, [Clip(clip_id="d", uri="d.mp4")])
    return folder.finish(inputs=4, used=1, drops=ledger.drops, summary={"drops": ledger.counts()})


class Told:
    """What a log says to MLflow."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.children: dict[str, dict[str, float]] = {}
        self.log = Log(SimpleNamespace(log=self._figures, log_child=self._child))

    def _figures(self, figures: dict[str, float], **_: Any) -> None:
        self.figures |= figures

    def _child(self, child: str, *, metrics: dict[str, float], **_: Any) -> None:
        self.children[child] = metrics


def test_drops_are_told_by_reason(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    told = Told()
    told.log("decoded", lambda: decoded(cfg))
    expected = {"inputs": 4, "dropped": 3, "dropped_corrupt": 2, "dropped_timeout": 1}
    for figures in (told.figures, told.children["decoded"]):
        assert {name: figures[f"decoded/{name}"] for name in expected} == expected


def test_a_stage_that_is_reused_tells_the_same_figures(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    first, again = Told(), Told()
    first.log("decoded", lambda: decoded(cfg))
    again.log("decoded", lambda: finished(cfg, "decoded"))
    assert set(first.figures) == set(again.figures)
    assert first.children["decoded"] == again.children["decoded"]


def test_what_a_corpus_lists_is_told_and_a_clip_table_has_no_such_stage(tmp_path: Path) -> None:
    cfg = corpus(tmp_path)
    told = Told()
    told.log.source(cfg)
    assert told.figures == {"source/inputs": 3, "source/dropped": 2, "source/dropped_bad_name": 2}
    assert told.children["source"].items() >= told.figures.items()
    plain = Told()
    plain.log.source(config(tmp_path))
    assert (plain.figures, plain.children) == ({}, {})
