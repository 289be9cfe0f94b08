"""One learner step, as peers do it and as a prefix tree, in turn in one run.

`python -m benchmarks.learner_step [--device cpu|cuda] [--shape mini|small|standard|7b-layer|3b] [--json]`

Same weights, same pair, same loss (AVEm-DPO, two rejects, one swapped input, stored text prior), LoRA on the language
model, towers frozen. A step is forward, loss, backward, optimizer:

    baseline         chosen, rejects and swapped branch as separate right-padded sequences in one batch; the media of
                     each branch encoded for the policy and again for the reference; reference by adapter-off
    tree             one prefix tree; each distinct medium encoded once; reference by adapter-off in a second forward
                     pass over the same tree
    tree_ref_cached  reference log-probs known
    tree_all_cached  reference log-probs and tower outputs known

The baseline is given what peers often lack: log-probs at response tokens alone, plain causal attention without a
mask (exact with padding on the right). Pairs with a swapped audio and with a swapped video are measured one after the
other; figures are the mean of the two, each also given. `flop_bound` is what the count of multiplications allows.
Peak bytes: on GPU the allocator's peak above the weights, on CPU the bytes kept for the backward pass. On GPU also the
peak with the weights, GiB, and the share of what a large square product of the same type reaches on this device
(`matmul_peak_flops_per_s`) that the counted multiplications of a step come to; null on CPU.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from avere_ray.backbones.qwen2_5_omni import Policy, add_lora
from avere_ray.backbones.qwen2_5_omni.policy import ATTENTION
from avere_ray.backbones.types import AudioFeatures, MediaEmbeds, MediaShape, Sample, VideoFeatures
from avere_ray.logprobs import branch_logps, token_logps
from benchmarks.flops import baseline_flops, tree_flops
from benchmarks.loss import step_loss
from benchmarks.shapes import SHAPES, Shape, make_media, make_policy, tower_share
from benchmarks.timing import matmul_peak, seconds_of

VARIANTS = ("baseline", "tree", "tree_ref_cached", "tree_all_cached")
SWAPS = ("audio", "video")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """One pair and everything a step needs of it."""

    policy: Policy
    samples: tuple[Sample, ...]
    """Chosen, two rejects, chosen under the swapped input."""
    video: dict[str, VideoFeatures]
    audio: dict[str, AudioFeatures]


def make_bench(policy: Policy, shape: Shape, swap: str) -> Bench:
    """A pair whose swapped input replaces one medium."""
    processor = policy.processor
    media = {name: make_media(shape, seed) for seed, name in enumerate(("own", "other"))}
    video = {name: processor.video_features(m.frames) for name, m in media.items()}
    audio = {name: processor.audio_features(m.waveform) for name, m in media.items()}

    def shown(name: str) -> tuple[str, MediaShape]:
        grid, mel = video[name].grid_thw, audio[name].mel
        return name, MediaShape(
            grid_thw=grid,
            second_per_grid=processor.second_per_grid(shape.frames / shape.seconds),
            video_tokens=processor.video_tokens(grid),
            audio_tokens=processor.audio_tokens(mel.shape[1]),
        )

    random = torch.Generator().manual_seed(1)
    lengths = (shape.response, shape.response - 4, shape.response + 4)
    responses = [torch.randint(20, 500, (n,), generator=random).tolist() for n in lengths]
    prompt = " ".join(["word"] * (shape.prompt_words // 2))
    own = {"video": shown("own"), "audio": shown("own")}
    samples = [processor.sample(prompt, r, **own) for r in responses]
    samples.append(processor.sample(prompt, responses[0], **{**own, swap: shown("other")}))
    return Bench(policy=policy, samples=tuple(samples), video=video, audio=audio)


def encode_distinct(bench: Bench) -> dict[str, MediaEmbeds]:
    """Each distinct medium of the pair through its tower once."""
    videos = sorted({s.video_id for s in bench.samples})
    audios = sorted({s.audio_id for s in bench.samples})
    with torch.no_grad():
        v = dict(zip(videos, bench.policy.encode_video([bench.video[k] for k in videos]), strict=True))
        a = dict(zip(audios, bench.policy.encode_audio([bench.audio[k] for k in audios]), strict=True))
    own = {"video": v["own"], "audio": a["own"]}
    return {k: MediaEmbeds(video=v.get(k, own["video"]), audio=a.get(k, own["audio"])) for k in {*v, *a}}


def tree_logps(bench: Bench, media: dict[str, MediaEmbeds], packed: Any, *, reference: bool) -> torch.Tensor:
    """Summed log-probs of the pair's branches [4] over one tree."""
    off = bench.policy.thinker.disable_adapter() if reference else nullcontext()
    with off, torch.no_grad() if reference else nullcontext():
        return bench.policy(packed, media)


def separate_logps(bench: Bench, *, reference: bool) -> torch.Tensor:
    """The same as separate right-padded sequences in one batch, each branch's media encoded for it."""
    off = bench.policy.thinker.disable_adapter() if reference else nullcontext()
    with off, torch.no_grad() if reference else nullcontext():
        return _padded_forward(bench)


def _padded_forward(bench: Bench) -> torch.Tensor:
    policy, samples = bench.policy, bench.samples
    with torch.no_grad():
        videos = policy.encode_video([bench.video[s.video_id] for s in samples])
        audios = policy.encode_audio([bench.audio[s.audio_id] for s in samples])
    size = max(len(s.token_ids) for s in samples)
    ids = torch.zeros(len(samples), size, dtype=torch.long)
    positions = torch.zeros(3, len(samples), size, dtype=torch.long)
    for b, s in enumerate(samples):
        ids[b, : len(s.token_ids)] = torch.from_numpy(s.token_ids)
        positions[:, b, : len(s.token_ids)] = torch.from_numpy(s.branch.positions)
    embeds = policy.core.model.embed_tokens(ids.to(policy.device))
    for b, s in enumerate(samples):
        kind = torch.from_numpy(s.kind)
        embeds[b, : len(kind)][kind == 1] = videos[b].to(embeds)
        embeds[b, : len(kind)][kind == 2] = audios[b].to(embeds)
    model = policy.core.model
    model.config._attn_implementation = "sdpa"
    try:
        hidden = model(
            inputs_embeds=embeds,
            attention_mask={"full_attention": None},
            position_ids=positions.to(policy.device),
            use_cache=False,
        ).last_hidden_state
    finally:
        model.config._attn_implementation = ATTENTION
    rows, at, targets = [], [], []
    for b, s in enumerate(samples):
        start = s.branch.response_start
        rows += [b] * (len(s.token_ids) - start)
        at += range(start - 1, len(s.token_ids) - 1)
        targets += s.token_ids[start:].tolist()
    row, node, target = (torch.tensor(x, device=policy.device) for x in (rows, at, targets))
    logps = token_logps(hidden[row, node], policy.core.lm_head.weight, target)
    return branch_logps(logps, row, len(samples))


def make_steps(bench: Bench, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], torch.Tensor]]:
    """The four variants; each takes one optimizer step and returns the policy's log-probs [4]."""
    known_media = encode_distinct(bench)
    packed = bench.policy.pack([bench.samples])
    known = tree_logps(bench, known_media, packed, reference=True)

    def finish(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        step_loss(policy, reference).backward()
        optimizer.step()
        return policy.detach()

    def baseline() -> torch.Tensor:
        reference = separate_logps(bench, reference=True)
        return finish(separate_logps(bench, reference=False), reference)

    def tree() -> torch.Tensor:
        media, row = encode_distinct(bench), bench.policy.pack([bench.samples])
        reference = tree_logps(bench, media, row, reference=True)
        return finish(tree_logps(bench, media, row, reference=False), reference)

    def ref_cached() -> torch.Tensor:
        media, row = encode_distinct(bench), bench.policy.pack([bench.samples])
        return finish(tree_logps(bench, media, row, reference=False), known)

    def all_cached() -> torch.Tensor:
        row = bench.policy.pack([bench.samples])
        return finish(tree_logps(bench, known_media, row, reference=False), known)

    return dict(zip(VARIANTS, (baseline, tree, ref_cached, all_cached), strict=True))


def measure_pair(policy: Policy, shape: Shape, swap: str, repeats: int) -> dict[str, Any]:
    """Seconds, differences and peak bytes of the four variants on one pair."""
    bench = make_bench(policy, shape, swap)
    trained = [p for p in policy.parameters() if p.requires_grad]
    steps = make_steps(bench, torch.optim.AdamW(trained, lr=0.0))
    logps, grads, peaks = {}, {}, {}
    for name in ("baseline", "tree"):
        policy.zero_grad(set_to_none=True)
        peaks[name], logps[name] = _peak_of(steps[name], policy)
        grads[name] = [p.grad.clone() for p in trained]
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name in VARIANTS:
            policy.zero_grad(set_to_none=True)
            times[name].append(seconds_of(steps[name], policy.device))
    flops = {"baseline": baseline_flops(shape, bench.samples)}
    tree = bench.policy.pack([bench.samples]).tree
    for name, reference, encode in (
        ("tree", True, True),
        ("tree_ref_cached", False, True),
        ("tree_all_cached", False, False),
    ):
        flops[name] = tree_flops(shape, bench.samples, tree, reference=reference, encode=encode)
    return {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "flops": flops,
        "tokens": {"baseline": sum(len(s.token_ids) for s in bench.samples), "tree": tree.size},
        "prompt": bench.samples[0].branch.response_start,
        "peak": peaks,
        "logp_diff": float((logps["baseline"] - logps["tree"]).abs().max()),
        "grad_diff": max(
            float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in zip(*grads.values(), strict=True)
        ),
    }


def _peak_of(step: Callable[[], torch.Tensor], policy: Policy) -> tuple[int, torch.Tensor]:
    """Peak bytes of a step above the weights, and what it returns."""
    weights = list(policy.parameters())
    if policy.device.type == "cuda":
        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = step()
        return torch.cuda.max_memory_allocated() - before, out
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = step()
    own = {p.untyped_storage().data_ptr() for p in weights}
    return sum(size for at, size in kept.items() if at not in own), out


def measure(shape_name: str, device_name: str, repeats: int) -> dict[str, Any]:
    """The benchmark's figures for one shape."""
    shape, device = SHAPES[shape_name], torch.device(device_name)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    policy = add_lora(make_policy(shape, device=device, dtype=dtype), rank=8, alpha=32.0, seed=0)
    policy.train()
    with torch.no_grad():
        for name, value in policy.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.01)
    pairs = {swap: measure_pair(policy, shape, swap, repeats) for swap in SWAPS}
    out: dict[str, Any] = {}
    for name in VARIANTS:
        out[f"{name}_s"] = _mean(pairs[s]["seconds"][name] for s in SWAPS)
    for key, name in zip(("", "_ref_cached", "_all_cached"), VARIANTS[1:], strict=True):
        out[f"speedup{key}"] = _ratio(pairs, "seconds", name)
        out[f"flop_bound{key}"] = _ratio(pairs, "flops", name)
        out[f"share_of_bound{key}"] = out[f"speedup{key}"] / out[f"flop_bound{key}"]
        for swap in SWAPS:
            out[f"speedup{key}_{swap}_swap"] = pairs[swap]["seconds"]["baseline"] / pairs[swap]["seconds"][name]
    for name in ("baseline", "tree"):
        out[f"peak_bytes_{name}"] = max(pairs[s]["peak"][name] for s in SWAPS)
    out["peak_share"] = _mean(pairs[s]["peak"]["tree"] / pairs[s]["peak"]["baseline"] for s in SWAPS)
    out["max_abs_logp_diff"] = max(pairs[s]["logp_diff"] for s in SWAPS)
    out["max_rel_grad_diff"] = max(pairs[s]["grad_diff"] for s in SWAPS)
    vision, audio = tower_share(shape)
    out |= {
        "prompt_tokens": pairs["audio"]["prompt"],
        "baseline_tokens": pairs["audio"]["tokens"]["baseline"],
        "tree_tokens_audio_swap": pairs["audio"]["tokens"]["tree"],
        "tree_tokens_video_swap": pairs["video"]["tokens"]["tree"],
        "video_tower_share": vision,
        "audio_tower_share": audio,
        "tokens_per_s_tree": _mean(pairs[s]["tokens"]["tree"] / pairs[s]["seconds"]["tree"] for s in SWAPS),
        "flops_per_s_baseline": _mean(pairs[s]["flops"]["baseline"] / pairs[s]["seconds"]["baseline"] for s in SWAPS),
        "flops_per_s_tree": _mean(pairs[s]["flops"]["tree"] / pairs[s]["seconds"]["tree"] for s in SWAPS),
        **_against_peak(pairs, policy),
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "shape": shape_name,
        "device": device_name,
    }
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in out.items()}


def _against_peak(pairs: dict[str, dict[str, Any]], policy: Policy) -> dict[str, float | None]:
    """Multiplications per second of a step as a share of a large product's, and the peak memory of the tree's step."""
    names = ("baseline", "tree")
    keys = ("matmul_peak_flops_per_s", *(f"share_of_matmul_peak_{n}" for n in names), *(f"peak_gib_{n}" for n in names))
    if policy.device.type != "cuda":
        return dict.fromkeys(keys)
    peak = matmul_peak(policy.device, next(policy.parameters()).dtype)
    weights = sum(p.nbytes for p in policy.parameters())
    rates = [_mean(pairs[s]["flops"][n] / pairs[s]["seconds"][n] for s in SWAPS) / peak for n in names]
    memory = [(weights + max(pairs[s]["peak"][n] for s in SWAPS)) / 2**30 for n in names]
    return dict(zip(keys, (peak, *rates, *memory), strict=True))


def _ratio(pairs: dict[str, dict[str, Any]], what: str, name: str) -> float:
    """Mean over the kinds of pairs of baseline over variant."""
    return _mean(pairs[s][what]["baseline"] / pairs[s][what][name] for s in SWAPS)


def _mean(values: Any) -> float:
    return float(statistics.fmean(values))


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learner_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="standard")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; use --device cpu")
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: at least 1 is needed")
    figures = measure(options.shape, options.device, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
