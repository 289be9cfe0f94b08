"""The real learner with DeepSpeed in one process, on real clips: exact resume, refusals, and what it writes."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairmaker import make_run
from safetensors.torch import load_file

from avere_ray.backbones import backbone, load_policy, load_processor, model_digest
from avere_ray.config import LossConfig, RunConfig, TrainConfig
from avere_ray.errors import ConfigError, TrainingError
from avere_ray.learner import TrainJob, checkpoints, preflight, train_alone
from avere_ray.learner.job import FIRST_PAIR, TEXT_PRIOR
from avere_ray.learner.stream import Dealt, local_rows
from avere_ray.learner.worker import Learner
from avere_ray.ledger import Ledger
from avere_ray.media_cache import MediaCache
from avere_ray.metrics import read_events
from avere_ray.records import AdapterManifest, PreferencePair, ReferenceLogps
from avere_ray.reference import AsIs, to_record
from avere_ray.stages import StageFolder, file_digest, read_records, write_records
from avere_ray.store import DecodedStore
from jobs import train
from jobs.layout import stage_path

TRAIN = {"workers": 1, "pairs_per_step": 4, "micro_pairs": 2, "learning_rate": 1e-3, "epochs": 2, "checkpoint_every": 2}
STEPS = 4
"""7 pairs, 2 epochs, 4 pairs a step: the last step has no full set of pairs."""


class Killed(Exception):
    """Stands for the end of the process between two steps."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """A run with its pairs, and a process group of one."""
    import torch.distributed as dist

    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
            patch.setenv(name, value)
        patch.setenv("MASTER_PORT", "29500")
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=0, world_size=1)
        yield make_run(folder / "run", clips=3, pairs=7)
        dist.destroy_process_group()


Start = Callable[..., tuple[RunConfig, TrainJob]]


@pytest.fixture
def start(made: RunConfig, tmp_path: Path) -> Start:
    """Makes a job ready for other settings, in a folder of its own."""

    def ready(dtype: str = "float32", **settings: Any) -> tuple[RunConfig, TrainJob]:
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        for stage in ("decoded", "pairs", "reference", "store"):
            shutil.copytree(made.run_dir / stage, run_dir / stage)
        cfg = made.model_copy(
            update={
                "run_dir": run_dir,
                "train": TrainConfig(**{**TRAIN, **settings}),
                "model": made.model.model_copy(update={"dtype": dtype}),
            }
        )
        folder = StageFolder(stage_path(cfg, "adapters", 0), stage="adapters", key="")
        folder.begin()
        job = train._job(cfg, 0, folder, ("pairs", "reference", ""))
        claim(cfg, job)
        pairs = read_records(stage_path(cfg, "pairs", 0) / "pairs.parquet", PreferencePair)
        train._usable_pairs(cfg, job, pairs, Ledger("adapters"))
        return cfg, job

    return ready


def claim(cfg: RunConfig, job: TrainJob) -> checkpoints.Checkpoint | None:
    return checkpoints.claim(
        job.checkpoints,
        key=job.key,
        world=1,
        zero_stage=cfg.train.zero_stage,
        base_digest=job.base_digest,
        dtype=cfg.model.dtype,
        spool=job.spool / f"{job.writer}.jsonl",
    )


def learn(cfg: RunConfig, job: TrainJob, *, kill_at: int | None = None) -> AdapterManifest | None:
    if kill_at is None:
        return train_alone(cfg, job)

    def rows(owed: Any) -> Iterator[Dealt]:
        for row in local_rows(cfg, job, rank=0, world=1, first=owed[0].step if owed else STEPS):
            if row.share.step == kill_at:
                raise Killed
            yield row

    return Learner(cfg, job, rank=0, world=1).run(rows)


def logged(job: TrainJob) -> list[tuple[int, float, float]]:
    events = read_events(job.spool / f"{job.writer}.jsonl")
    return [(e.body["step"], e.metrics["loss"], e.metrics["grad_norm"]) for e in events]


@pytest.mark.parametrize(
    ("dtype", "settings", "kills"),
    [
        ("float32", {"zero_stage": 2}, (1, 3)),
        ("bfloat16", {"zero_stage": 0, "reference_source": "adapter_off", "tokens_per_micro": 800}, (3,)),
        ("bfloat16", {"zero_stage": 2, "micro_pairs": 1}, (3,)),
        ("float32", {"zero_stage": 3, "tuning": "full", "projectors": True, "offload_optimizer": True}, (3,)),
    ],
    ids=["lora zero2", "lora bf16 zero0 adapter off", "lora bf16 zero2", "full zero3 offload"],
)
def test_a_run_killed_at_any_step_repeats_itself_bit_for_bit(
    start: Start, dtype: str, settings: dict[str, Any], kills: tuple[int, ...]
) -> None:
    cfg, job = start(dtype, **settings)
    undisturbed = learn(cfg, job)
    assert undisturbed is not None
    assert [step for step, _, _ in logged(job)] == list(range(STEPS))
    for step in kills:
        cfg, killed = start(dtype, **settings)
        with pytest.raises(Killed):
            learn(cfg, killed, kill_at=step)
        found = claim(cfg, killed)
        assert (found.step if found else 0) == step // 2 * 2
        again = learn(cfg, killed)
        assert logged(killed) == logged(job)
        assert again is not None
        assert again.weights_sha256 == undisturbed.weights_sha256


def test_how_a_step_is_divided_does_not_change_what_is_learned(start: Start) -> None:
    """Against micro-batches of two pairs and ZeRO 2; the last step of the run is not a full one."""
    cfg, job = start()
    learn(cfg, job)
    figures, learned = np.array(logged(job)), weights(job)
    for settings in ({"micro_pairs": 1}, {"tokens_per_micro": 800}, {"micro_pairs": 4, "zero_stage": 0}):
        cfg, other = start(**settings)
        learn(cfg, other)
        assert np.array(logged(other)) == pytest.approx(figures, rel=2e-4), settings
        found = weights(other)
        assert all((found[name] - learned[name]).abs().max() < 1e-4 for name in learned), settings


def test_a_round_whose_reference_is_the_round_before_starts_from_the_identity(start: Start) -> None:
    cfg, first = start()
    learn(cfg, first)
    settings = {"reference_source": "precomputed", "reference": "previous_round"}
    cfg, second = start(**settings)
    second = dataclasses.replace(second, start=first.out)
    with pytest.raises(TrainingError, match="its own reference"):  # the figures are still the base's
        learn(cfg, second)
    cfg, second = start(**settings)
    second = dataclasses.replace(second, start=first.out)
    score_under(cfg, second, first.out)
    learn(cfg, second)
    events = read_events(second.spool / f"{second.writer}.jsonl")
    assert abs(events[0].metrics["rewards/margins"]) < 1e-3 < events[-1].metrics["rewards/margins"]


def score_under(cfg: RunConfig, job: TrainJob, adapter: Path) -> None:
    """Gives a job the reference figures of the base with an adapter, as the stage before training does."""
    family = backbone(cfg.model.backbone)
    policy = family.add_lora(load_policy(cfg.model), rank=cfg.train.lora_rank, alpha=cfg.train.lora_alpha, seed=0)
    family.load_adapter(policy, adapter)
    store = DecodedStore(job.decoded)
    source = AsIs(policy.eval(), MediaCache(processor=policy.processor, load=lambda clip: store[clip]))
    pairs = read_records(job.pairs, PreferencePair)
    figures = [to_record(p, source.score(row), "") for p, row in zip(pairs, source.rows(pairs), strict=True)]
    write_records(job.reference, ReferenceLogps, figures)


def test_an_adaptive_text_prior_goes_on_in_the_next_round(start: Start) -> None:
    cfg, first = adaptive(start)
    learn(cfg, first)
    left = json.loads((first.out / TEXT_PRIOR).read_text())
    assert any(gamma != cfg.loss.text_prior_gamma for gamma in left["gamma"].values())
    last = read_events(first.spool / f"{first.writer}.jsonl")[-1].metrics
    for group, gain in left["clip_gain"].items():
        told = last.get(f"text_prior/reliance_{group}")
        assert told == (pytest.approx(left["text_gain"][group] / gain) if gain else None)
    assert {"text_prior/reliance_audio", "text_prior/gamma_audio"} <= set(last)
    cfg, second = adaptive(start)
    learner = Learner(cfg, dataclasses.replace(second, start=first.out), rank=0, world=1)
    learner._begin()
    assert learner.objective.text_prior.state_dict() == left


def test_text_prior_and_random_numbers_go_on_in_the_middle_of_a_round(start: Start) -> None:
    import torch

    cfg, job = adaptive(start, checkpoint_every=1)
    with pytest.raises(Killed):
        learn(cfg, job, kill_at=3)
    found = claim(cfg, job)
    assert found is not None and found.step == 3
    assert any(gamma != cfg.loss.text_prior_gamma for gamma in found.controller["gamma"].values())
    learner = Learner(cfg, job, rank=0, world=1)
    torch.manual_seed(1)
    learner._begin()
    assert learner.objective.text_prior.state_dict() == found.controller
    left = torch.load(checkpoints.step_folder(job.checkpoints, 3) / "rng-0.pt", weights_only=False)
    assert torch.get_rng_state().equal(left["torch"])


def adaptive(start: Start, **settings: Any) -> tuple[RunConfig, TrainJob]:
    """A job whose text prior moves fast."""
    cfg, job = start(reference_source="cached", **settings)
    loss = LossConfig.model_validate({"text_prior": "adaptive", "text_prior_rate": 0.5})
    return cfg.model_copy(update={"loss": loss}), job


def weights(job: TrainJob) -> dict[str, Any]:
    """The adapter that a job has written."""
    return load_file(job.out / "adapter_model.safetensors")


def test_training_in_one_process_takes_one_worker(start: Start) -> None:
    cfg, job = start(workers=2)
    with pytest.raises(ConfigError, match=r"train\.workers is 2; a training in one process has 1"):
        train_alone(cfg, job)


def test_a_checkpoint_holds_what_going_on_needs_and_each_step_tells_its_figures(start: Start) -> None:
    cfg, job = start()
    job.mlflow.write_text('{"run_id": "abc"}')
    learn(cfg, job)
    found = checkpoints.latest(job.checkpoints)
    assert found is not None
    assert (found.step, found.cursor, found.world, found.mlflow_run_id) == (STEPS, 14, 1, "abc")
    folder = checkpoints.step_folder(job.checkpoints, STEPS)
    assert file_digest(folder / "adapter" / "adapter_model.safetensors") == file_digest(
        job.out / "adapter_model.safetensors"
    )
    told = [event.metrics for event in read_events(job.spool / f"{job.writer}.jsonl")]
    last = told[-1]
    assert last["encoder/calls_per_pair"] == 0.0, "from the second epoch on nothing is encoded"
    assert {f"timing_s/{s}" for s in ("data_wait", "encode", "forward", "backward", "optimizer", "step")} <= set(last)
    assert last["perf/tokens_per_second"] > 0
    assert 0.05 < last["perf/peak_memory_gb"] < 100
    assert [m["learning_rate"] for m in told] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert [m["epoch"] for m in told] == pytest.approx([0.0, 4 / 7, 8 / 7, 12 / 7])


def test_the_first_pair_is_shown_with_its_mask_and_tree(start: Start) -> None:
    cfg, job = start()
    with pytest.raises(Killed):
        learn(cfg, job, kill_at=1)
    text = (job.checkpoints / FIRST_PAIR).read_text()
    assert "<|VIDEO|>" in text
    assert "[(][B][)][ No]" in text
    assert "nodes instead of" in text


def spoil(job: TrainJob, pair_id: str, value: float) -> None:
    """Another reference figure for the chosen response of one pair."""
    figures = read_records(job.reference, ReferenceLogps)
    write_records(
        job.reference,
        ReferenceLogps,
        [dataclasses.replace(f, responses=(value, *f.responses[1:])) if f.pair_id == pair_id else f for f in figures],
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("inf"), r"the loss is not finite at step \d for pair\(s\) pair004"), (-3.0, r"own reference.*pair004")],
)
def test_a_wrong_reference_stops_before_the_first_step(start: Start, value: float, words: str) -> None:
    cfg, job = start(pairs_per_step=8)
    spoil(job, "pair004", value)
    with pytest.raises(TrainingError, match=words):
        learn(cfg, job)
    assert logged(job) == []
    assert checkpoints.latest(job.checkpoints) is None


def test_an_optimizer_state_that_does_not_fit_names_the_pairs_of_the_step(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def step(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cfg, job = start()
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(TrainingError, match=r"optimizer step of pair\(s\) (pair00\d(, )?){4}\. .*train\.lora_rank"):
        learn(cfg, job)
    assert logged(job) == []


def test_full_tuning_writes_a_model_folder_that_loads(start: Start) -> None:
    """Language model and projectors have moved, the towers have not, and every other file is there."""
    cfg, job = start(tuning="full", projectors=True)
    manifest = learn(cfg, job)
    assert manifest is not None
    tuned = job.out / "model"
    assert manifest.weights_sha256 == model_digest(tuned) != job.base_digest
    before, after = (load_file(folder / "model.safetensors") for folder in (cfg.model.path, tuned))
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert any("visual.merger" in name for name in changed)
    assert any("audio_tower.proj" in name for name in changed)
    assert any(".model.layers." in name for name in changed)
    assert not [
        n for n in changed if ("visual." in n and ".merger." not in n) or ("audio_tower." in n and ".proj." not in n)
    ]
    load_policy(cfg.model.model_copy(update={"path": tuned}))
    assert {p.name for p in tuned.iterdir()} == {p.name for p in cfg.model.path.iterdir() if p.is_file()}


def test_a_pair_of_words_alone_is_trained_beside_pairs_with_media(start: Start) -> None:
    cfg, job = start(reference_source="adapter_off")
    pairs = read_records(job.pairs, PreferencePair)
    pairs[1] = dataclasses.replace(pairs[1], clip_id="", modality="", swap=None)
    write_records(job.pairs, PreferencePair, pairs)
    lengths = preflight.Lengths(load_processor(cfg.model), job.decoded, cfg.data.decode)
    assert 0 < (lengths.prompt(pairs[1]) or 0) < (lengths.prompt(pairs[0]) or 0)
    assert learn(cfg, job) is not None
    assert [step for step, _, _ in logged(job)] == list(range(STEPS))
