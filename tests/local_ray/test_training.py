"""Real engine, real learner, real Ray Train and DeepSpeed, on the tiny base: one decoded corpus serves all tests."""

import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from avere_ray.config import DataConfig, ModelConfig, RolloutConfig, RunConfig, TrainConfig, WorldConfig
from avere_ray.errors import ParityError, TrainingError
from avere_ray.metrics import read_events
from avere_ray.records import DecodedClip, PreferencePair, ReferenceLogps
from avere_ray.stages import read_manifest, read_records
from jobs import build_preferences, decode, synth, train
from jobs.layout import stage_path
from jobs.rollouts import read_rollouts, round_queries
from jobs.workers import Workers

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cfg(local_ray: Any, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run with its pairs built: 10 training clips, 2 queries each."""
    config = RunConfig(
        run_dir=tmp_path_factory.mktemp("training") / "run",
        world=WorldConfig(train_clips=10, test_clips=4),
        data=DataConfig.model_validate({"decode": {"max_duration_s": 10}}),
        model=ModelConfig(),
        rollout=RolloutConfig(
            queries_per_clip=2, samples=2, num_cpus=0, batch_queries=5, max_tokens=32, deadline_s=120, kv_cache_mb=1024
        ),
        train=TrainConfig(pairs_per_step=8, micro_pairs=4, learning_rate=1e-3, checkpoint_every=1),
    )
    synth.run(config)
    decode.run(config)
    return config


@pytest.fixture(scope="module")
def workers(cfg: RunConfig) -> Any:
    """The run's actors, with pairs and reference of round 0 built."""
    with Workers(cfg) as own:
        build_preferences.run(cfg, 0, own)
        yield own


def test_pairs_have_complete_reference_figures(cfg: RunConfig, workers: Workers) -> None:
    pairs = read_records(stage_path(cfg, "pairs", 0) / "pairs.parquet", PreferencePair)
    figures = read_records(stage_path(cfg, "reference", 0) / "reference.parquet", ReferenceLogps)
    assert [p.pair_id for p in pairs] == [f.pair_id for f in figures]
    assert sum(p.swap is not None for p in pairs) > len(pairs) // 2
    for pair, figure in zip(pairs, figures, strict=True):
        assert len(figure.responses) == len(figure.text_prior) == 1 + len(pair.rejects)
        assert all(value < 0 for value in (*figure.responses, *figure.text_prior))
        assert (figure.swapped < 0) == (pair.swap is not None)
        if pair.swap is None:
            assert pair.chosen.startswith("(B) No"), "an answer that is right about the partner too"
            continue
        own = (pair.swap.audio_clip_id == pair.clip_id, pair.swap.video_clip_id == pair.clip_id)
        assert own == {"audio": (False, True), "video": (True, False), "audio_video": (False, False)}[pair.modality]


@pytest.mark.faults  # with `make faults`, as real engines that start anew; tests/local_ray/test_pool.py has others
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_lost_in_mid_batch_is_replaced_and_gives_the_same_rollouts(
    local_ray: Any, cfg: RunConfig, workers: Workers, how: signal.Signals
) -> None:
    """Killed, or stopped, which is noticed by the deadline; other batches of its are in work then."""
    pool, queries = workers.pool, round_queries(cfg, 0, workers)
    options = {"n": 2, "temperature": 1.0, "max_tokens": 32, "seed": 5}
    undisturbed = pool(queries, **options)
    assert {r.adapter_version for group in undisturbed for r in group} == {0}
    replaced, limits = pool.replaced, pool.engines.limits
    victim = psutil.Process(local_ray.get(pool.actors[0].process_id.remote(), timeout=60))

    def disturb_after_the_first_batch(done: int, total: int | None) -> None:
        if pool.replaced == replaced and done < len(queries):
            assert any(task.what == "call" for engine in pool.engines.all for task in engine.tasks.values())
            victim.send_signal(how)
            pool.engines.limits = limits

    pool.engines.limits = dataclasses.replace(limits, call_s=15.0)
    assert pool(queries, progress=disturb_after_the_first_batch, **options) == undisturbed
    assert pool.replaced == replaced + 1
    victim.wait(60)


def test_killed_judge_swap_actor_and_scorer_give_the_same_answers(cfg: RunConfig, workers: Workers) -> None:
    queries, rollouts = read_rollouts(cfg, 0)
    by_id, clips = {q.query_id: q for q in queries}, {c.clip_id: c for c in workers.clips}
    first = [rollouts[0].token_ids]

    def answers() -> tuple[Any, Any, Any]:
        return (
            workers.judged(rollouts, by_id, clips),
            workers.swap.ask("pairs", "swap", queries),
            workers.scorer.ask("parity gate", "response_logps", queries[:1], first, None),
        )

    undisturbed = answers()
    services = (workers.judge, workers.swap, workers.scorer)
    for service in services:
        os.kill(service.process_id(), signal.SIGKILL)
    assert answers() == undisturbed
    assert [service.take_replaced() for service in services] == [1, 1, 1]


@pytest.fixture(scope="module")
def adapter(cfg: RunConfig, workers: Workers) -> Path:
    """The folder of an adapter that one round has trained, with two workers and ZeRO 2."""
    ctrl_c = signal.getsignal(signal.SIGINT)
    train.run(cfg, 0)
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    return stage_path(cfg, "adapters", 0)


def test_a_round_trains_an_adapter_that_the_engine_applies(cfg: RunConfig, workers: Workers, adapter: Path) -> None:
    """Two workers with ZeRO 2 end with an adapter for which engine and learner agree, and it is not the base. (Stages 0
    and 3 are trained in `test_learner_alone.py`, stage 3 with two workers in `test_two_ranks.py`.)"""
    manifest = read_manifest(adapter)
    assert manifest is not None
    assert manifest.summary["steps"] == -(-manifest.used // 8)
    queries = round_queries(cfg, 0, workers)[:2]
    answer = workers.pool(queries, n=1, temperature=0.0, max_tokens=16, seed=0)
    responses = [r[0].token_ids for r in answer]
    workers._loaded = None
    workers.use_adapter(None, 0)
    base = workers.pool.response_logps(queries, responses)
    assert workers.use_adapter(adapter, 1) < 1e-4
    tuned = workers.pool.response_logps(queries, responses)
    assert (
        max(abs(a - b) for x, y in zip(base[0], tuned[0], strict=True) for a, b in zip(x.logps, y.logps, strict=True))
        > 1e-3
    )


@pytest.fixture(scope="module")
def learner(local_ray: Any) -> Iterator[train.Fit]:
    """Trains with one worker, in a process that starts once for all that it trains."""
    from actors.learner import LearnerActor
    from jobs.study_runs import _fit

    actor = LearnerActor.options(num_cpus=0).remote()
    yield partial(_fit, actor)
    local_ray.kill(actor)


def test_one_worker_learns_what_two_do(cfg: RunConfig, adapter: Path, learner: train.Fit, tmp_path: Path) -> None:
    """The same steps by one process, in micro-batches of another size."""
    from safetensors.torch import load_file

    alone = cfg.model_copy(update={
        "run_dir": tmp_path / "run", "train": cfg.train.model_copy(update={"workers": 1, "micro_pairs": 2})
    })  # fmt: skip
    for stage in ("decoded", "pairs", "reference", "store"):
        source = cfg.run_dir / stage if stage != "store" else cfg.run_dir.parent / stage
        shutil.copytree(source, (alone.run_dir if stage != "store" else tmp_path) / stage)
    train.run(alone, 0, learner)
    both = [
        [
            (e.metrics["loss"], e.metrics["grad_norm"])
            for e in read_events(stage_path(c, "metrics") / "train-round0.jsonl")
        ]
        for c in (cfg, alone)
    ]
    assert np.array(both[1]) == pytest.approx(np.array(both[0]), rel=2e-4)
    two, one = (load_file(stage_path(c, "adapters", 0) / "adapter_model.safetensors") for c in (cfg, alone))
    assert all((two[name] - one[name]).abs().max() < 1e-4 for name in two)


def test_a_second_round_is_sampled_from_the_first_ones_adapter_in_the_same_engine_and_goes_on_from_it(
    local_ray: Any, cfg: RunConfig, workers: Workers, adapter: Path, learner: train.Fit
) -> None:
    """Sampled, judged, scored and trained as any round, by the engine's process that sampled the first."""

    def engine() -> tuple[int, int]:
        [actor] = workers.pool.actors
        return local_ray.get(actor.process_id.remote(), timeout=60), workers.pool.replaced

    first = engine()
    build_preferences.run(cfg, 1, workers)
    queries, rollouts = read_rollouts(cfg, 1)
    assert len(rollouts) == 2 * len(queries) == 40
    assert {rollout.adapter_version for rollout in rollouts} == {1}
    alone = cfg.model_copy(update={"train": cfg.train.model_copy(update={"workers": 1})})
    manifest, before = train.run(alone, 1, learner), read_manifest(adapter)
    assert before is not None
    assert (before.summary["version"], manifest.summary["version"]) == (1, 2)
    zero, one = (list(read_events(stage_path(cfg, "metrics") / f"train-round{k}.jsonl")) for k in (0, 1))
    assert [e.body["step"] - len(zero) for e in one] == list(range(manifest.summary["steps"]))
    margins = [abs(events[0].metrics["rewards/margins"]) for events in (zero, one)]
    assert margins[0] < 1e-4 and margins[1] > 1e-3, "the base begins at its reference, the first adapter beyond"
    assert workers.use_adapter(stage_path(cfg, "adapters", 1), 2) < 1e-4
    assert engine() == first


def test_every_step_is_logged_once_and_the_latest_checkpoint_is_kept(cfg: RunConfig, adapter: Path) -> None:
    manifest = read_manifest(adapter)
    assert manifest is not None
    logged = [e.body["step"] for e in read_events(stage_path(cfg, "metrics") / "train-round0.jsonl")]
    assert logged == list(range(manifest.summary["steps"]))
    kept = sorted(p.name for p in stage_path(cfg, "checkpoints", 0).glob("step=*"))
    assert 1 <= len(kept) <= 2
    assert kept[-1] == f"step={len(logged):06d}"


def test_checkpoints_of_another_number_of_workers_say_what_to_do(
    local_ray: Any, cfg: RunConfig, adapter: Path, tmp_path: Path
) -> None:
    """The note of the round says it is not finished: shards of two workers do not fit one."""
    run_dir = tmp_path / "run"
    for stage in ("decoded", "pairs", "reference", "checkpoints"):
        shutil.copytree(cfg.run_dir / stage, run_dir / stage)
    note = run_dir / "checkpoints" / "round=0" / "job.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "finished": False}))
    alone = cfg.model_copy(update={"run_dir": run_dir, "train": cfg.train.model_copy(update={"workers": 1})})
    with pytest.raises(TrainingError, match=r"written by 2 worker.*train\.workers=2"):
        train.run(alone, 0)


@pytest.mark.faults
def test_an_engine_that_does_not_take_an_adapter_is_replaced_by_one_that_has_it(
    local_ray: Any, cfg: RunConfig, workers: Workers, adapter: Path
) -> None:
    """It is stopped before the push. The new one never answers with the base, and the gate is passed."""
    pool = workers.pool
    replaced, limits = pool.replaced, pool.engines.limits
    victim = psutil.Process(local_ray.get(pool.actors[0].process_id.remote(), timeout=60))
    pool.engines.limits = dataclasses.replace(limits, sync_s=3.0)
    victim.send_signal(signal.SIGSTOP)
    pool.engines.use(adapter, 2)
    pool.engines.limits = limits
    assert workers.use_adapter(adapter, 2) < 1e-4
    assert pool.replaced == replaced + 1
    assert pool.figures()["engines_quarantined"] >= 1
    found = pool(round_queries(cfg, 0, workers), n=1, temperature=1.0, max_tokens=8, seed=0)
    assert {r.adapter_version for group in found for r in group} == {2}
    victim.wait(60)


class Altered:
    """A store whose clips are changed on their way to one of the two sides."""

    def __init__(self, store: Any, change: Callable[[DecodedClip], dict[str, Any]]) -> None:
        self.store, self.change = store, change

    def __getitem__(self, clip_id: str) -> DecodedClip:
        clip = self.store[clip_id]
        return dataclasses.replace(clip, **self.change(clip))


def alter_clips(worker: Any, change: Callable[[DecodedClip], dict[str, Any]]) -> None:
    worker.store = Altered(worker.store, change)


def alter_prompt(worker: Any, change: Callable[[Any, list[int]], list[int]]) -> None:
    processor, whole = worker.engine.processor, worker.engine.processor.prompt_ids
    worker.whole_prompt = whole
    processor.prompt_ids = lambda *asked: change(processor, list(whole(*asked)))


def alter_names(worker: Any, name: str) -> None:
    """All videos have one name in the engine's caches, so that later ones meet what the first has left there."""
    whole = worker.whole_inputs = worker.engine._family.engine_inputs

    def engine_inputs(*clips: Any, **shown: bool) -> dict[str, Any]:
        inputs = whole(*clips, **shown)
        uuids = inputs["multi_modal_uuids"]
        return {**inputs, "multi_modal_uuids": {medium: [name] * len(clips) if medium == "video" else uuids[medium]
                                                for medium in uuids}}  # fmt: skip

    worker.engine._family.engine_inputs = engine_inputs


def undo(worker: Any) -> None:
    """As it was before."""
    worker.store = getattr(worker.store, "store", worker.store)
    if hasattr(worker, "whole_prompt"):
        worker.engine.processor.prompt_ids = worker.__dict__.pop("whole_prompt")
    if hasattr(worker, "whole_inputs"):
        worker.engine._family.engine_inputs = worker.__dict__.pop("whole_inputs")


def audio_first(processor: Any, ids: list[int]) -> list[int]:
    """The prompt with the sound before the video, each with the marks around it; one with a single medium as it is."""
    if processor.video_id not in ids or processor.audio_id not in ids:
        return ids
    video, audio = ids.index(processor.video_id) - 1, ids.index(processor.audio_id) - 1
    return ids[:video] + ids[audio : audio + 3] + ids[video : video + 3] + ids[audio + 3 :]


def smaller(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames [T, H, W, 3] with fewer pixels, the nearest ones."""
    rows, columns = (np.linspace(0, n - 1, size).round().astype(int) for n in frames.shape[1:3])
    return frames[:, rows][:, :, columns]


FAULTS: dict[str, tuple[Callable[..., None], Any, str]] = {
    "double start token": (alter_prompt, lambda processor, ids: [ids[0], *ids], "see different prompts"),
    "half the frames": (alter_clips, lambda clip: {"frames": clip.frames[::2]}, "media grids.*(seconds|video) is"),
    "another frame rate": (alter_clips, lambda c: {"duration_s": 1.5 * c.duration_s}, "media grids.*seconds is"),
    "another size": (alter_clips, lambda clip: {"frames": smaller(clip.frames, 56)}, "media grids.*video is"),
    "another way to resize": (
        alter_clips,
        lambda clip: {"frames": smaller(smaller(clip.frames, 28), clip.frames.shape[1])},
        "disagree with adapter version 1",
    ),
    "stale encoder cache": (alter_names, "the video of some clip", "disagree with adapter version 1"),
    "audio before video": (alter_prompt, audio_first, "see different prompts"),
    "audio backwards": (
        alter_clips, lambda clip: {"waveform": clip.waveform[::-1].copy()}, "disagree with adapter version 1"
    ),
}  # fmt: skip
"""What goes wrong on the engine's side, and what the gate says."""


@pytest.mark.parametrize("name", FAULTS)
def test_the_gate_catches(local_ray: Any, workers: Workers, adapter: Path, name: str) -> None:
    """Each fault is in what the running engine is given; the learner's side is as ever."""
    local_ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    inject, how, words = FAULTS[name]
    actor = workers.pool.actors[0]
    workers._loaded = None
    local_ray.get(actor.__ray_call__.remote(inject, how), timeout=60)
    try:
        with pytest.raises(ParityError, match=words):
            workers.use_adapter(adapter, 1)
    finally:
        local_ray.get(actor.__ray_call__.remote(undo), timeout=60)
        local_ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert workers.use_adapter(adapter, 1) < 1e-4


def test_an_adapter_without_the_full_prefix_is_caught(workers: Workers, adapter: Path, tmp_path: Path) -> None:
    """Keys as peft saves them for the Thinker: vLLM would accept them and apply nothing."""
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    bare = {k.replace("model.thinker.model.", "model.model."): v for k, v in weights.items()}
    save_file(bare, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    with pytest.raises(ParityError, match="full model's prefix"):
        workers.use_adapter(tmp_path, 7)
