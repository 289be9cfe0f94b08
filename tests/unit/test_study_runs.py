"""What a study does again: what its settings, clips or weights have changed since, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from pairmaker import make_pair

from avere_ray.av_store import AvStore
from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError, StageError, TrainingError
from avere_ray.learner import TrainJob
from avere_ray.learner.checkpoints import Checkpoint, finish, step_folder
from avere_ray.records import AdapterManifest, Clip, DecodedClip, PreferencePair
from avere_ray.stages import StageFolder
from avere_ray.store import DecodedStore, is_complete, write_index, write_places
from jobs import reproduce, study_runs, train
from jobs.layout import stage_path

TRAINED = AdapterManifest(
    version=1, path=".", base_digest="b", backbone="qwen2_5_omni", round=0, step=2, rank=8, alpha=32.0,
    data_digest="d", decode_spec="s", weights_sha256="w",
)  # fmt: skip
HALF = {"model": {"dtype": "bfloat16"}, "parity": {"max_abs_diff": 0.1}}


def model_in(folder: Path, weights: str = "1") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def decode(run: RunConfig, store: Path, value: int) -> None:
    """A finished decode stage of one clip, all of whose samples are `value`."""
    folder = StageFolder(stage_path(run, "decoded"), stage="decode", key=str(value))
    folder.begin()
    clip = DecodedClip(
        clip_id="c", spec="s", frames=np.full((1, 2, 2, 3), value, np.uint8), frame_times_s=np.zeros(1, np.float32),
        waveform=np.full(4, value, np.float32), duration_s=1.0,
    )  # fmt: skip
    places = AvStore(store).add("spec", [(f"sha{value}", 0, clip)])
    write_index(folder.path, [Clip(clip_id="c", uri="u", sha256=f"sha{value}")], {"c": places[0]})
    folder.finish(inputs=1, used=1)
    write_places(folder.path, AvStore(store), {"c": places[0]})


def test_methods_that_took_different_numbers_of_steps_are_not_compared(tmp_path: Path) -> None:
    def trained(method: str, steps: int) -> None:
        folder = StageFolder(tmp_path / "seed=3" / method / "adapters" / "round=0", stage="train", key="k")
        folder.begin()
        folder.finish(inputs=1, used=1, summary={"steps": steps})

    trained("dpo", 32)
    trained("avem_dpo", 32)
    assert reproduce.steps_taken(tmp_path / "seed=3", ["dpo", "avem_dpo"]) == 32
    trained("mdpo", 30)
    with pytest.raises(StageError, match=r"seed=3 .* \(dpo 32, avem_dpo 32, mdpo 30\)"):
        reproduce.steps_taken(tmp_path / "seed=3", ["dpo", "avem_dpo", "mdpo"])


@pytest.fixture
def world(tmp_path: Path) -> RunConfig:
    """The shared part of a world: decoded clips and pairs."""
    values = {"run_dir": tmp_path / "runs", "model": {"path": model_in(tmp_path / "model")},
              "train": {"reference_source": "cached"}}  # fmt: skip
    cfg = study_runs.world_config(RunConfig.model_validate(values), "seed=0", seed=0)
    decode(cfg, tmp_path / "store", 1)
    folder = StageFolder(stage_path(cfg, "pairs", 0), stage="pairs", key="test")
    folder.begin()
    folder.write("pairs", PreferencePair, [make_pair(0, 3)])
    folder.finish(inputs=1, used=1)
    return cfg


@pytest.fixture
def trained(world: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The run of a method that has been trained, by a stand-in."""
    monkeypatch.setattr(train, "_usable_pairs", lambda cfg, job, pairs, ledger: pairs)
    cfg = study_runs.method_config(world, "dpo", {"learning_rate": 1e-3, "beta": 0.1})
    study_runs.lay_out(world, cfg)
    assert not train.is_finished(cfg, 0)
    train.run(cfg, 0, stand_in)
    return cfg


def stand_in(cfg: RunConfig, job: TrainJob) -> AdapterManifest:
    return TRAINED


def test_a_run_counts_as_trained_with_its_own_settings_alone(trained: RunConfig, world: RunConfig) -> None:
    assert train.is_finished(trained, 0)
    for rate, beta in ((2e-3, 0.1), (1e-3, 0.3)):
        assert not train.is_finished(study_runs.method_config(world, "dpo", {"learning_rate": rate, "beta": beta}), 0)
    assert not train.is_finished(study_runs.changed(trained, **HALF), 0)
    assert train.is_finished(study_runs.changed(trained, train={"deadline_s": 5.0}), 0)
    model_in(trained.model.path, weights="2")
    assert not train.is_finished(trained, 0)


def test_what_was_trained_with_other_settings_is_trained_again(
    trained: RunConfig, world: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Started(Exception):
        pass

    def start(model: object) -> None:
        raise Started

    monkeypatch.setattr("avere_ray.backbones.load_processor", start)
    study_runs.train_side_by_side([trained], 1)
    assert "reused" in capsys.readouterr().out
    with pytest.raises(Started):
        study_runs.train_side_by_side([study_runs.method_config(world, "dpo", {"learning_rate": 2e-3, "beta": 0.1})], 1)


def test_a_method_trains_on_the_clips_that_its_world_has_now(
    trained: RunConfig, world: RunConfig, tmp_path: Path
) -> None:
    decode(world, tmp_path / "store", 2)
    study_runs.lay_out(world, trained)
    assert DecodedStore(stage_path(trained, "decoded"))["c"].waveform.tolist() == [2.0] * 4
    assert not train.is_finished(trained, 0)


def test_a_half_copy_of_the_clips_is_made_whole(trained: RunConfig, world: RunConfig) -> None:
    target = stage_path(trained, "decoded")
    (target / "places.parquet").unlink()
    study_runs.lay_out(world, trained)
    assert is_complete(target)
    assert train.is_finished(trained, 0)


class Engine:
    """Workers of a world without clips; counts how often a model is put to use."""

    clips = ()

    def __init__(self) -> None:
        self.used = 0

    def use_adapter(self, *_: object) -> float:
        self.used += 1
        return 0.0

    def pool(self, queries: list[object], **_: object) -> list[object]:
        return queries

    def judged(self, rollouts: list[object], *_: object) -> list[object]:
        return rollouts


def test_probes_are_asked_again_of_other_weights_and_judges_and_lengths(world: RunConfig, tmp_path: Path) -> None:
    engine = Engine()
    model_in(tmp_path / "moved")
    for changes in (
        {},
        {"rollout": {"max_tokens": world.rollout.max_tokens + 1}},
        {"judge": {"backend": "omni", "model_path": tmp_path / "moved"}},
        {"model": {"path": model_in(tmp_path / "other", weights="2")}},
        HALF,
    ):
        before = engine.used
        for _ in range(2):
            study_runs.probe(study_runs.changed(world, **changes), -1, engine)  # type: ignore[arg-type]
        assert engine.used == before + 1, changes
    study_runs.probe(
        study_runs.changed(study_runs.changed(world, **HALF), model={"path": tmp_path / "moved"}), -1, engine
    )  # type: ignore[arg-type]
    assert engine.used == before + 1, "the same weights elsewhere are the same model"


def test_a_dose_base_is_taught_again_from_other_weights(
    world: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Path] = []
    monkeypatch.setattr("avere_ray.synthetic.reteach.teach_bias", lambda source, out, **_: taught.append(source))
    for _ in range(2):
        reproduce.dose_world(world, 0.5)
    assert len(taught) == 1
    model_in(world.model.path, weights="2")
    reproduce.dose_world(world, 0.5)
    assert len(taught) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference_source": "precomputed"}, "Set train.reference_source=cached"),
        ({"workers": 2}, "Set train.workers=1; study.learners says"),
    ],
)
def test_what_no_training_of_a_study_can_have_is_refused_at_once(
    world: RunConfig, changes: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = study_runs.changed(world, train={"workers": 1, "reference_source": "cached"})
    reproduce.check_trainings(fitting)
    monkeypatch.setattr(reproduce, "ray_session", None)
    with pytest.raises(ConfigError, match=words):
        reproduce.run(study_runs.changed(fitting, train=changes))


def test_a_half_trained_round_does_not_go_on_in_another_dtype(
    world: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_usable_pairs", lambda cfg, job, pairs, ledger: pairs)
    cfg = study_runs.method_config(world, "dpo", {"learning_rate": 1e-3, "beta": 0.1})
    study_runs.lay_out(world, cfg)

    def lost(cfg: RunConfig, job: TrainJob) -> AdapterManifest:
        made = Checkpoint(
            step=1, cursor=1, epoch=1.0, key=job.key, world=cfg.train.workers, zero_stage=cfg.train.zero_stage,
            dtype=cfg.model.dtype, base_digest=job.base_digest, mlflow_run_id=None,
        )  # fmt: skip
        finish(step_folder(job.checkpoints, 1), made)
        raise TrainingError("lost")

    with pytest.raises(TrainingError, match="lost"):
        train.run(cfg, 0, lost)
    with pytest.raises(TrainingError, match=r"was trained in float32, but model\.dtype is bfloat16"):
        train.run(study_runs.changed(cfg, **HALF), 0, stand_in)
    assert train.run(cfg, 0, stand_in).used == 1
