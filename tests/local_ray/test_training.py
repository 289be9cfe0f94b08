"""Real engine, real learner, real Ray Train and DeepSpeed, on the tiny base: one decoded corpus serves all tests."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from avere_ray.config import DataConfig, ModelConfig, RolloutConfig, RunConfig, TrainConfig, WorldConfig
from avere_ray.records import PreferencePair, ReferenceLogps
from avere_ray.stages import read_records
from jobs import build_preferences, decode, synth, train
from jobs.layout import stage_path
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
        train=TrainConfig(pairs_per_step=8, micro_pairs=4, learning_rate=1e-3),
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
    for pair, figure in zip(pairs, figures, strict=True):
        assert len(figure.responses) == len(figure.text_prior) == 1 + len(pair.rejects)
        assert all(value < 0 for value in (*figure.responses, *figure.text_prior, figure.swapped))
        assert pair.swap is not None
        own = (pair.swap.audio_clip_id == pair.clip_id, pair.swap.video_clip_id == pair.clip_id)
        assert own == {"audio": (False, True), "video": (True, False), "audio_video": (False, False)}[pair.modality]


def test_a_killed_engine_is_replaced_and_gives_the_same_rollouts(
    local_ray: Any, cfg: RunConfig, workers: Workers
) -> None:
    queries = build_preferences.round_queries(cfg, 0, workers)
    options = {"n": 2, "temperature": 1.0, "max_tokens": 32, "seed": 5}
    undisturbed = workers.pool(queries, **options)
    replaced = workers.pool.replaced
    victim = local_ray.get(workers.pool.actors[0].process_id.remote(), timeout=60)

    def kill_after_the_first_batch(done: int, total: int | None) -> None:
        if workers.pool.replaced == replaced and done < len(queries):
            os.kill(victim, signal.SIGKILL)

    assert workers.pool(queries, progress=kill_after_the_first_batch, **options) == undisturbed
    assert workers.pool.replaced == replaced + 1


def test_killed_judge_swap_actor_and_scorer_give_the_same_answers(cfg: RunConfig, workers: Workers) -> None:
    queries, rollouts = build_preferences.read_rollouts(cfg, 0)
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


def test_a_round_trains_an_adapter_that_the_engine_applies(cfg: RunConfig, workers: Workers) -> None:
    """Two workers with ZeRO 2 end with an adapter for which engine and learner agree, and it is not the base. (Stages 0
    and 3 are trained in `test_learner_alone.py`, stage 3 with two workers in `test_two_ranks.py`.)"""
    ctrl_c = signal.getsignal(signal.SIGINT)
    manifest = train.run(cfg, 0)
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    assert manifest.summary["steps"] == -(-manifest.used // 8)
    queries = build_preferences.round_queries(cfg, 0, workers)[:2]
    answer = workers.pool(queries, n=1, temperature=0.0, max_tokens=16, seed=0)
    responses = [r[0].token_ids for r in answer]
    workers._loaded = None
    workers.use_adapter(None, 0)
    base = workers.pool.response_logps(queries, responses)
    folder = stage_path(cfg, "adapters", 0)
    assert workers.use_adapter(folder, 1) < 1e-4
    tuned = workers.pool.response_logps(queries, responses)
    assert (
        max(abs(a - b) for x, y in zip(base[0], tuned[0], strict=True) for a, b in zip(x[1], y[1], strict=True)) > 1e-3
    )


def test_an_adapter_without_the_full_prefix_is_caught(cfg: RunConfig, workers: Workers, tmp_path: Path) -> None:
    """Keys as peft saves them for the Thinker: vLLM would accept them and apply nothing."""
    from safetensors.torch import load_file, save_file

    from avere_ray.errors import AvereError

    good = stage_path(cfg, "adapters", 0)
    weights = load_file(good / "adapter_model.safetensors")
    bare = {k.replace("model.thinker.model.", "model.model."): v for k, v in weights.items()}
    save_file(bare, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text((good / "adapter_config.json").read_text())
    with pytest.raises(AvereError):
        workers.use_adapter(tmp_path, 7)
