"""What only an NVIDIA GPU shows: FlexAttention's backward pass, a learner step, engine against learner, the benchmark.

On the tiny base, with one GPU. They are skipped with their reason where there is none; see `tests/conftest.py`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from avere_ray.attention import make_layout, padded_size, tree_attention
from avere_ray.backbones import backbone, load_policy
from avere_ray.config import DecodeConfig, LossConfig, ModelConfig, RolloutConfig
from avere_ray.learner.objective import PairObjective, reference_branches
from avere_ray.media_cache import MediaCache
from avere_ray.reference import AdapterOff
from avere_ray.tree import join_rows, pack_branches
from tests.model.models import tiny_base
from tests.model.pairs import PAIRS, Clips, make_clip
from tests.model.test_attention import GROUPS, _branch

DEVICE = "cuda"
MODEL = ModelConfig(path=tiny_base(), dtype="bfloat16")
NATS_PER_TOKEN = 0.5
"""What bfloat16 may differ by at a token, as in parity.max_abs_diff of the shipped GPU configs."""


def tree_row(longer: int) -> Any:
    """Forks of several depths; `longer` times as many tokens as the smallest."""
    groups = [[tokens * longer for tokens in group] for name in ("deep", "fork") for group in GROUPS[name]]
    return join_rows([pack_branches([_branch(tokens) for tokens in group]) for group in groups])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_flex_gives_the_values_and_gradients_of_the_dense_mask(dtype: torch.dtype) -> None:
    """Rows of several lengths, with several heads to a key; compiled for the first length, then once for all others."""
    from torch._dynamo.utils import counters

    counters.clear()
    for longer in (1, 4, 9):
        row, found = tree_row(longer), {}
        size = padded_size(row.size, "flex")
        random = torch.Generator().manual_seed(longer)
        values = [torch.randn(1, heads, size, 32, generator=random) for heads in (4, 2, 2)]
        weights = torch.randn(1, 4, row.size, 32, generator=random).to(DEVICE)
        for kernel in ("flex", "dense"):
            length = size if kernel == "flex" else row.size
            heads = [v[:, :, :length].to(DEVICE, dtype, copy=True).requires_grad_() for v in values]
            out = tree_attention(*heads, make_layout(row, kernel, torch.device(DEVICE)), 0.2)[:, :, : row.size]
            (out.float() * weights).sum().backward()
            found[kernel] = [out, *(h.grad[:, :, : row.size] for h in heads if h.grad is not None)]
        bound = 2e-3 if dtype == torch.float32 else 6e-2
        for ours, plain in zip(found["flex"], found["dense"], strict=True):
            torch.testing.assert_close(ours.float(), plain.float(), atol=bound, rtol=bound)
    assert counters["stats"]["unique_graphs"] <= 2


@pytest.fixture(scope="module")
def policy() -> Any:
    """The tiny base on the GPU with a fresh adapter."""
    return fresh_policy()


def fresh_policy() -> Any:
    return backbone(MODEL.backbone).add_lora(load_policy(MODEL, device=DEVICE), rank=8, alpha=32.0, seed=0)


def test_a_bfloat16_step_lowers_the_loss(policy: Any) -> None:
    cfg = LossConfig()
    media = MediaCache(processor=policy.processor, load=Clips())
    objective = PairObjective(cfg, policy, media, AdapterOff(policy, media, reference_branches(cfg)))
    assert policy.device.type == torch.device(DEVICE).type
    policy.train()
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=3e-3), []
    for step in range(4):
        scored = objective.score(policy, PAIRS, objective.rows(PAIRS))
        if step == 0:
            torch.testing.assert_close(scored.start_loss_P, scored.expected_start_P, atol=0.1, rtol=0)
        losses.append(scored.loss_P.mean().item())
        scored.loss_P.mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    policy.eval()


def test_the_gpu_gives_the_log_probs_of_the_cpu(policy: Any) -> None:
    plain = load_policy(MODEL.model_copy(update={"dtype": "float32"}))
    scored = [AdapterOff(p, MediaCache(processor=p.processor, load=Clips())).figures(PAIRS) for p in (policy, plain)]
    for ours, exact in zip(*scored, strict=True):
        assert ours.flat() == pytest.approx(exact.flat(), abs=5.0)  # summed over responses of up to 50 tokens


def test_the_engine_gives_what_the_learner_gives_for_base_and_adapter(tmp_path: Path) -> None:
    from avere_ray.engine import Engine

    changed = fresh_policy().eval()
    with torch.no_grad():
        for name, value in changed.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.05)
    backbone(MODEL.backbone).save_adapter(changed, tmp_path)
    rollout = RolloutConfig(num_gpus=1, gpu_memory_utilization=0.3, max_model_len=512, batch_queries=4)
    decode = DecodeConfig(frames=4, height=84, width=84, max_duration_s=10)
    engine = Engine(MODEL, rollout, lora_rank=8, decode=decode)
    clip, prompt = make_clip("a"), PAIRS[0].prompt
    response = changed.processor.response_ids(PAIRS[0].chosen)
    seen = {}
    for version in (0, 1):
        engine.load_adapter(tmp_path, version)
        theirs = engine.response_logps(prompt, clip, response).logps
        ours = learner_logps(changed, clip, prompt, response, base=version == 0)
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < NATS_PER_TOKEN
        seen[version] = theirs
    assert seen[0] != seen[1], "the engine applies the adapter"


def learner_logps(policy: Any, clip: Any, prompt: str, response: list[int], *, base: bool) -> list[float]:
    """Log-prob of each response token as the learner sees it, with the adapter or without."""
    from contextlib import nullcontext

    media = MediaCache(processor=policy.processor, load=lambda _: clip)
    shown = media.clip(policy, clip.clip_id)
    sample = policy.processor.sample(prompt, response, video=shown.shown(), audio=shown.heard())
    with torch.no_grad(), policy.without_adapter() if base else nullcontext():
        return policy([[sample]], media.embeds, per_token=True).tolist()


def test_the_benchmark_measures_a_step_against_the_matmul_peak() -> None:
    from benchmarks.learner_step import measure

    figures = measure("small", DEVICE, 1)
    assert figures["dtype"] == "bfloat16"
    assert 0 < figures["share_of_matmul_peak_tree"] <= 1
    assert figures["peak_gib_tree"] > 0
    assert figures["max_abs_logp_diff"] < 5.0  # sums over responses of 50 tokens
