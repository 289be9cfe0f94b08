"""One of two processes of `tests/local_ray/test_two_ranks.py`; see there."""

import dataclasses
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairmaker import make_pair

from avere_ray.backbones import load_policy
from avere_ray.backbones.qwen2_5_omni import add_lora, place_towers, set_towers_apart, unfreeze_language_model
from avere_ray.config import LossConfig, RunConfig, TrainConfig
from avere_ray.errors import TrainingError
from avere_ray.learner import guard, zero
from avere_ray.learner.objective import PairObjective, reference_branches
from avere_ray.media_cache import MediaCache
from avere_ray.records import DecodedClip
from avere_ray.reference import AdapterOff, Precomputed, to_record

LOSS = LossConfig(kind="mod_dpo_pp")
"""Everything that may differ by pair: swapped branches without gradient, and the text prior."""
STEPS = 4


def main(folder: Path, cases: list[str]) -> None:
    """Trains one case after the other ("lora 3": tuning and ZeRO stage); what came of it is in CASE-rankR.json."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meet'}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=150),
    )
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(os.getppid()))  # names the shared memory of this pair
    for case in cases:
        tuning, stage = case.rsplit(" ", 1)
        answer = one_case(rank, tuning, int(stage))
        (folder / f"{case}-rank{rank}.json").write_text(json.dumps(answer))


def one_case(rank: int, tuning: str, stage: int) -> dict[str, Any]:
    train_cfg = TrainConfig.model_validate({"zero_stage": stage, "learning_rate": 1e-3})
    cfg = RunConfig(rounds=1, loss=LOSS, train=train_cfg)
    policy = load_policy(cfg.model)
    if tuning == "lora":
        policy = module = add_lora(policy, rank=8, alpha=32, seed=0)
        media = MediaCache(processor=policy.processor, load=clip)
        reference: Any = AdapterOff(policy, media, reference_branches(LOSS))
    else:
        reference = stored_figures(policy)
        module = unfreeze_language_model(policy, projectors=True)
        media = MediaCache(processor=policy.processor, load=clip)
    set_towers_apart(policy)
    watch = guard.Watch([p for p in module.parameters() if p.requires_grad])
    engine, _ = zero.start_engine(module, cfg, passes=1)
    place_towers(policy, engine.device)
    objective = PairObjective(LOSS, policy, media, reference)
    return train(objective, engine, watch, rank, stage)


def train(objective: PairObjective, engine: Any, watch: guard.Watch, rank: int, stage: int) -> dict[str, Any]:
    """Steps with media, swaps and two pairs on one rank only, in turn; then one that is not finite on rank 1."""
    answer: dict[str, Any] = {"losses": [], "norms": []}
    for step in range(STEPS):
        pairs = RICH if step % 2 == rank else PLAIN
        scored = objective.score(engine, pairs, objective.rows(pairs))
        zero.accumulate(engine, scored.loss_P.mean(), last=True)
        engine.step()
        answer["losses"].append(scored.loss_P.tolist())
        answer["norms"].append(float(engine.get_global_grad_norm()))
        if step == 0:
            answer["off_start"] = float((scored.start_loss_P - scored.expected_start_P).abs().max())
    answer["encoded"] = objective.media.encoder_calls
    answer["weights_before"] = weights(engine, stage)
    pairs = [dataclasses.replace(PLAIN[0], pair_id=f"rank{rank}-pair")]
    with watch.micro_batch(pairs):
        scored = objective.score(engine, pairs, objective.rows(pairs))
        zero.accumulate(engine, scored.loss_P.sum() * (float("inf") if rank else 1.0), last=True)
    everyone = guard.agree({"bad": watch.bad})
    try:
        guard.refuse({k: v for one in everyone for k, v in one["bad"].items()}, step=9)
    except TrainingError as error:
        answer["refused"] = str(error)
    answer["weights_after_refusal"] = weights(engine, stage)
    return answer


def stored_figures(policy: Any) -> Precomputed:
    """The base's figures of every pair, as the stage before training makes them."""
    source = AdapterOff(policy, MediaCache(processor=policy.processor, load=clip))
    pairs = [*RICH, *PLAIN, *(dataclasses.replace(PLAIN[0], pair_id=f"rank{r}-pair") for r in range(2))]
    records = [to_record(p, source.score(row), "") for p, row in zip(pairs, source.rows(pairs), strict=True)]
    return Precomputed(pairs, records)


def weights(engine: Any, stage: int) -> float:
    """A number that any change of a trained weight would change."""
    trained = [p for p in engine.module.parameters() if p.requires_grad]
    with zero.gathered(trained, zero_stage=stage):
        return sum(p.detach().double().abs().sum().item() for p in trained)


def clip(name: str) -> DecodedClip:
    """A clip of one colour and one tone."""
    number = int(name[-1])
    return DecodedClip(
        clip_id=name,
        spec="",
        frames=np.full((2, 84, 84, 3), 90 + 50 * number, np.uint8),
        frame_times_s=np.arange(2, dtype=np.float32),
        waveform=np.sin(np.arange(16_000, dtype=np.float32) / (20 + number)),
        duration_s=2.0,
    )


RICH = [make_pair(0, 2), make_pair(1, 2)]
"""Two pairs with clips, one asking about the voice, one about the face, each with both swaps and two rejects."""
PLAIN = [make_pair(3, 2, pair_id="plain", clip_id="", modality="", swap=None)]
"""One pair of words alone, with one reject."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
