"""One of two processes of `tests/local_ray/test_two_ranks.py`; see there."""

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
from avere_ray.backbones.qwen2_5_omni import add_lora
from avere_ray.backbones.tuning import place_towers, set_towers_apart, unfreeze_language_model
from avere_ray.config import RunConfig, TrainConfig
from avere_ray.errors import TrainingError
from avere_ray.learner import guard, zero
from avere_ray.records import DecodedClip

PROMPT, RESPONSES = "Is the person angry? (A) Yes (B) No", ("(B) No.", "(A) Yes, the red shirt shows anger.")


def main(folder: Path, projectors: bool) -> None:
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(os.getppid()))  # names the shared memory of this pair
    cfg = RunConfig(rounds=1, train=TrainConfig(zero_stage=3, learning_rate=1e-3))
    base = load_policy(cfg.model)
    if projectors:
        policy, module = base, unfreeze_language_model(base, projectors=True)
    else:
        policy = module = add_lora(base, rank=8, alpha=32, seed=0)
    set_towers_apart(policy)
    watch = guard.Watch([p for p in module.parameters() if p.requires_grad])
    engine, _ = zero.start_engine(module, cfg, passes=1)
    place_towers(policy, engine.device)
    (folder / f"rank{rank}.json").write_text(json.dumps(train(policy, engine, watch, rank)))


def train(policy: Any, engine: Any, watch: guard.Watch, rank: int) -> dict[str, Any]:
    """Four steps with media on one rank only, in turn; then one whose gradient is not finite on rank 1."""
    media: dict[str, Any] = {}
    answer: dict[str, Any] = {"losses": [], "norms": [], "encoded": 0}
    own: Any = None
    for step in range(4):
        shown = step % 2 == rank
        if shown and not media:
            features = policy.processor.features(clip())
            with torch.no_grad():
                media["clip"] = policy.encode([features])[0]
            answer["encoded"] += 1
            own = ("clip", features)
        rows = [
            [
                policy.processor.sample(PROMPT, r, video=own, audio=own)
                if shown
                else policy.processor.sample(PROMPT, r)
                for r in RESPONSES
            ]
        ]
        scores = engine(rows, media)
        loss = -torch.nn.functional.logsigmoid(scores[0] - scores[1])
        zero.accumulate(engine, loss, last=True)
        engine.step()
        answer["losses"].append(loss.item())
        answer["norms"].append(float(engine.get_global_grad_norm()))
    answer["weights_before"] = weights(engine)
    scores = engine([[policy.processor.sample(PROMPT, r) for r in RESPONSES]], media)
    pairs = [make_pair(0, 2, pair_id=f"rank{rank}-pair")]
    with watch.micro_batch(pairs):
        zero.accumulate(engine, (scores[0] - scores[1]) * (float("inf") if rank else 1.0), last=True)
    everyone = guard.agree({"bad": watch.bad})
    try:
        guard.refuse({k: v for one in everyone for k, v in one["bad"].items()}, step=9)
    except TrainingError as error:
        answer["refused"] = str(error)
    answer["weights_after_refusal"] = weights(engine)
    return answer


def weights(engine: Any) -> float:
    """A number that any change of a trained weight would change."""
    trained = [p for p in engine.module.parameters() if p.requires_grad]
    with zero.gathered(trained, zero_stage=3):
        return sum(p.detach().double().abs().sum().item() for p in trained)


def clip() -> DecodedClip:
    times = np.arange(2, dtype=np.float32)
    return DecodedClip(
        clip_id="clip",
        spec="",
        frames=np.full((2, 84, 84, 3), 90, np.uint8),
        frame_times_s=times,
        waveform=np.sin(np.arange(16_000, dtype=np.float32) / 20),
        duration_s=2.0,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1")
