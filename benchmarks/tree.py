"""One learner step on pairs as prefix trees, against the same branches as separate padded rows.

`python -m benchmarks.tree [--pairs N] [--repeats N] [--json]`. Same weights, same loss, the two in turn; the towers'
outputs are computed once before, so this compares the language model alone. Prints medians and their ratio.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BASE = Path("avere_ray/synthetic/tiny_base")


def measure(pairs: int, repeats: int) -> dict[str, Any]:
    """Seconds of forward and backward, both ways, and how far their log-probs differ."""
    import torch

    from avere_ray.backbones.qwen2_5_omni import add_lora, load_policy

    policy = add_lora(load_policy(BASE, "float32"), rank=8, alpha=32.0, seed=0)
    rows, media = _pair_rows(policy, pairs)
    separate = [[sample] for row in rows for sample in row]
    with torch.no_grad():
        difference = float((policy(rows, media) - policy(separate, media)).abs().max())
    times: dict[str, list[float]] = {"tree_s": [], "separate_s": []}
    for _ in range(repeats + 1):
        for name, packed in (("tree_s", rows), ("separate_s", separate)):
            began = time.perf_counter()
            policy(packed, media).sum().backward()
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    from avere_ray.tree import pack_branches

    nodes = sum(pack_branches([s.branch for s in row]).size for row in rows)
    tokens = sum(len(s.token_ids) for row in rows for s in row)
    return {
        **{k: round(v, 4) for k, v in medians.items()},
        "speedup": round(medians["separate_s"] / medians["tree_s"], 2),
        "token_ratio": round(tokens / nodes, 2),
        "max_abs_logp_diff": difference,
        "pairs": pairs,
        "threads": torch.get_num_threads(),
    }


def _pair_rows(policy: Any, pairs: int) -> tuple[list[list[Any]], dict[str, Any]]:
    """Pairs of the synthetic world, half with swapped audio and half with swapped video."""
    import torch

    from avere_ray.prompts import all_queries, no_answer, yes_answer
    from avere_ray.synthetic.scene import clip_of, sample_scene
    from jobs.tiny_base import decode_scenes

    processor = policy.processor
    scenes = [sample_scene(f"bench{i}", "train", 0, bias=0.9, mismatch=0.3) for i in range(pairs + 1)]
    features = {c.clip_id: processor.features(c) for c in decode_scenes(scenes)}
    with torch.no_grad():
        media = dict(zip(features, policy.encode(list(features.values())), strict=True))
    rows = []
    for i, scene in enumerate(scenes[:-1]):
        clip = clip_of(scene, "")
        query = all_queries(clip, 0)[i % 2]
        own, other = ((s.scene_id, features[s.scene_id]) for s in (scene, scenes[i + 1]))
        cues = [c for c in clip.cues if c.modality == query.modality]
        texts = [query.reference, yes_answer(cues[0], "anger"), no_answer(cues[1])]
        row = [processor.sample(query.prompt, text, video=own, audio=own) for text in texts]
        swapped = {"video": own, "audio": other} if i % 2 else {"video": other, "audio": own}
        rows.append([*row, processor.sample(query.prompt, texts[0], **swapped)])
    return rows, media


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tree", description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args(argv)
    figures = measure(options.pairs, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<20} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
