"""What a 7B run needs and how it grows to 10 M clips: computed, not measured.

`python -m benchmarks.scale_model [--pairs N] [--clips N] [--nodes N] [--seconds S] [--json]`. Two parts: arithmetic for
one round of LoRA training on 8 GPUs, and a simulation of shards going through CPU nodes that decode and GPU nodes that
sample, with a bounded buffer between them and nodes that are taken away. Every constant says where it comes from.
"""

import argparse
import dataclasses
import heapq
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2.0**30
TIB = 2.0**40


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Everything the figures rest on. "measured" is of this project, on CPU, under the heading of BENCHMARKS.md that is
    named; "assumed" is to be replaced."""

    clip_s: float = 5.0
    """Length of a clip, seconds (assumed; MAFW and MER clips are a few seconds)."""
    frames: int = 8
    """Frames a clip (jobs/configs/qwen2_5_omni_7b.yaml)."""
    pixels: int = 224
    """Height and width of a frame (the same)."""
    prompt_tokens: int = 60
    """Words of a question with its choices (assumed)."""
    response_tokens: int = 100
    """Tokens of a response (assumed)."""
    language_params: float = 7.6e9
    """Qwen2.5-Omni-7B's language model (model card)."""
    tower_params: float = 1.3e9
    """Its vision and audio towers together (model card)."""
    peak_flops: float = 989e12
    """One H100 SXM, bfloat16 without sparsity (data sheet)."""
    utilisation: float = 0.35
    """Share of the peak that training and scoring reach (assumed)."""
    tree_share: float = 0.97
    """Share of the counted bound that a step on prefix trees reaches, references and tower outputs kept (measured:
    "One learner step", the lower of two runs)."""
    short_clip: tuple[float, float] = (3.0, 13.5)
    """Length of a short clip, seconds, and clips a second of one core's time: 480p (measured: "Decoding")."""
    long_clip: tuple[float, float] = (30.0, 1.93)
    """The same of a long clip: 720p (measured there)."""
    engine_tokens_per_s: float = 2500.0
    """Tokens one H100 samples a second with a full batch of 7B (assumed)."""
    queries_per_clip: int = 3
    """Training queries a clip (the config)."""
    samples: int = 4
    """Responses a query (the config)."""
    gpu_hour: float = 2.5
    """Price of a GPU hour, in your currency (assumed)."""
    cpu_node_hour: float = 0.6
    """Price of an hour of a 16-core CPU node (assumed)."""
    cores_per_node: int = 15
    """Cores of a decode pod that Ray uses (cluster/workloads)."""
    gpus_per_node: int = 8
    """GPUs of a GPU node."""
    shard_clips: int = 1000
    """Clips a shard."""
    lost_per_node_hour: float = 0.02
    """How often a spot node is taken away, per hour (assumed)."""
    restart_s: float = 300.0
    """Seconds until a node that was taken away is replaced (assumed)."""

    @property
    def media_tokens(self) -> int:
        """Video tokens (two frames and 28 x 28 pixels each) and audio tokens (25 a second) of a clip."""
        return (self.frames // 2) * (self.pixels // 28) ** 2 + round(25 * self.clip_s)

    @property
    def decode_s(self) -> float:
        """CPU seconds to decode a clip: on the line through the two measured lengths, which differ in size as well."""
        (short, fast), (long, slow) = self.short_clip, self.long_clip
        return 1 / fast + (1 / slow - 1 / fast) * (self.clip_s - short) / (long - short)

    @property
    def stored_bytes(self) -> float:
        """Frames as uint8 and 16 kHz float32 waveform of a clip, uncompressed."""
        return self.frames * self.pixels**2 * 3 + self.clip_s * 16_000 * 4


@dataclass(frozen=True, kw_only=True)
class Training:
    """One round of AVEm-DPO on one node with 8 GPUs."""

    tree_tokens: float
    """Tokens a pair has as a prefix tree: chosen, two rejects and one swapped branch."""
    separate_tokens: float
    """Tokens of the same four branches as separate sequences."""
    shares: dict[str, float]
    """Share of the operations in each part, percent."""
    gpu_hours: float
    hours: float
    """On 8 GPUs."""
    separate_hours: float
    """The same without the tree, with references and towers in every step."""
    cost: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A corpus through decoding and sampling."""

    clips: int
    shards: int
    store_tib: float
    decode_nodes: int
    gpu_nodes: int
    hours: float
    ideal_hours: float
    """Without lost nodes and with a full buffer: the slower of the two stages."""
    decode_busy: float
    """Share of the decode nodes' time that they worked."""
    gpu_busy: float
    redone_shards: int
    """Shards begun on a node that was taken away, and done again."""
    rollouts_per_s: float
    read_gib_per_s: float
    """What the store must deliver to the GPU nodes together."""
    cost: float


def training(pairs: int, a: Assumptions) -> Training:
    """FLOPs of one round: frozen weights need no gradient of their own, so a step costs two passes, and one more for
    recomputing activations; references and towers are computed once and kept."""
    branch = a.media_tokens + a.prompt_tokens + a.response_tokens
    separate = 4.0 * branch
    swapped = (
        a.media_tokens / 2 + a.prompt_tokens + a.response_tokens
    )  # what stands before the swapped medium is shared
    tree = branch + 2 * a.response_tokens + swapped
    patches = 4 * a.media_tokens  # towers see each token's patches before they are merged
    text = 3 * (a.prompt_tokens + a.response_tokens)
    parts = {
        "learner": 6 * a.language_params * tree / a.tree_share,
        "reference": 2 * a.language_params * tree,
        "text prior": 2 * a.language_params * text,
        "towers": 2 * a.tower_params * patches * 2,  # the clip and its swap partner
    }
    naive = 8 * a.language_params * separate + parts["text prior"] + 2 * a.tower_params * patches * 4
    rate = a.peak_flops * a.utilisation
    gpu_hours = pairs * sum(parts.values()) / rate / 3600
    return Training(
        tree_tokens=round(tree, 1),
        separate_tokens=separate,
        shares={name: round(100 * flops / sum(parts.values()), 1) for name, flops in parts.items()},
        gpu_hours=round(gpu_hours, 2),
        hours=round(gpu_hours / a.gpus_per_node, 2),
        separate_hours=round(pairs * naive / rate / 3600 / a.gpus_per_node, 2),
        cost=round(gpu_hours * a.gpu_hour, 0),
    )


def rates(a: Assumptions) -> tuple[float, float]:
    """Clips a second of one decode node and of one GPU node.

    A GPU node samples every query of a clip; reading the prompts costs as much as the same tokens in scoring.
    """
    decode = a.cores_per_node / a.decode_s
    sampled = a.queries_per_clip * a.samples * a.response_tokens / a.engine_tokens_per_s
    read = a.queries_per_clip * 2 * a.language_params * (a.media_tokens + a.prompt_tokens)
    return decode, a.gpus_per_node / (sampled + read / (a.peak_flops * a.utilisation))


def scale(clips: int, gpu_nodes: int, a: Assumptions, *, seed: int = 0) -> Scale:
    """Simulates a corpus; as many decode nodes as keep the GPU nodes busy, and a tenth more."""
    per_decode, per_gpu = rates(a)
    decode_nodes = max(1, -(-int(1.1 * gpu_nodes * per_gpu) // int(per_decode)))
    shards = -(-clips // a.shard_clips)
    run = simulate(shards, decode_nodes, gpu_nodes, a.shard_clips / per_decode, a.shard_clips / per_gpu, a, seed)
    hours = run.seconds / 3600
    ideal = clips / min(decode_nodes * per_decode, gpu_nodes * per_gpu) / 3600
    done_per_s = clips / run.seconds
    return Scale(
        clips=clips,
        shards=shards,
        store_tib=round(clips * a.stored_bytes / TIB, 2),
        decode_nodes=decode_nodes,
        gpu_nodes=gpu_nodes,
        hours=round(hours, 1),
        ideal_hours=round(ideal, 1),
        decode_busy=round(run.decode_busy, 2),
        gpu_busy=round(run.gpu_busy, 2),
        redone_shards=run.redone,
        rollouts_per_s=round(done_per_s * a.queries_per_clip * a.samples, 1),
        read_gib_per_s=round(done_per_s * a.stored_bytes / GIB, 3),
        cost=round(hours * (gpu_nodes * a.gpus_per_node * a.gpu_hour + decode_nodes * a.cpu_node_hour), 0),
    )


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What the simulation saw."""

    seconds: float
    done: int
    redone: int
    decode_busy: float
    gpu_busy: float
    largest_buffer: int


def simulate(
    shards: int, decode_nodes: int, gpu_nodes: int, decode_s: float, sample_s: float, a: Assumptions, seed: int
) -> Simulated:
    """Shards through two stages with a bounded buffer, event by event; a lost node's shard goes back to its queue.

    The buffer holds two shards a GPU node; when it is full, decode nodes wait. So what is decoded ahead is bounded.
    """
    draw, limit = random.Random(seed), 2 * gpu_nodes
    waiting, buffer, promised, done, redone, largest = shards, 0, 0, 0, 0, 0
    idle = {"decode": decode_nodes, "sample": gpu_nodes}
    busy = {"decode": 0.0, "sample": 0.0}
    takes = {"decode": decode_s, "sample": sample_s}
    events: list[tuple[float, int, str, str]] = []
    now, count = 0.0, 0
    while done < shards:
        while waiting and idle["decode"] and buffer + promised < limit:
            waiting, promised = waiting - 1, promised + 1
            count = _begin("decode", now, count, idle, busy, takes, events, draw, a)
        while buffer and idle["sample"]:
            buffer -= 1
            count = _begin("sample", now, count, idle, busy, takes, events, draw, a)
        now, _, stage, what = heapq.heappop(events)
        if what == "back":
            idle[stage] += 1
            continue
        if what == "lost":
            redone += 1
            waiting, promised = (waiting + 1, promised - 1) if stage == "decode" else (waiting, promised)
            buffer += stage == "sample"
            count += 1
            heapq.heappush(events, (now + a.restart_s, count, stage, "back"))
            continue
        idle[stage] += 1
        if stage == "decode":
            promised, buffer = promised - 1, buffer + 1
            largest = max(largest, buffer)
        else:
            done += 1
    return Simulated(
        seconds=now,
        done=done,
        redone=redone,
        decode_busy=busy["decode"] / (decode_nodes * now),
        gpu_busy=busy["sample"] / (gpu_nodes * now),
        largest_buffer=largest,
    )


def _begin(
    stage: str,
    now: float,
    count: int,
    idle: dict[str, int],
    busy: dict[str, float],
    takes: dict[str, float],
    events: list[tuple[float, int, str, str]],
    draw: random.Random,
    a: Assumptions,
) -> int:
    """Puts a node to work on one shard: it ends, or the node is lost on the way."""
    idle[stage] -= 1
    life = draw.expovariate(a.lost_per_node_hour / 3600) if a.lost_per_node_hour > 0 else float("inf")
    lasts, what = (life, "lost") if life < takes[stage] else (takes[stage], "end")
    busy[stage] += lasts
    heapq.heappush(events, (now + lasts, count + 1, stage, what))
    return count + 1


def table(found: Training, scales: Sequence[Scale], a: Assumptions) -> str:
    """The figures in words."""
    decode, gpu = rates(a)
    shares = ", ".join(f"{part} {share:g}" for part, share in found.shares.items())
    lines = [
        "computed, not measured; assumptions in benchmarks/scale_model.py",
        f"training, one round on 8 GPUs: {found.hours:g} h ({found.gpu_hours:g} GPU hours, cost {found.cost:g}); "
        f"without tree and caches {found.separate_hours:g} h",
        f"  share of the operations, percent: {shares}",
        f"clips a second of one node: decoding {decode:.1f}, sampling {gpu:.1f}",
        "",
        "| clips | shards | store TiB | decode nodes | GPU nodes | hours | rollouts/s | GiB/s read | GPU busy | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in scales:
        lines.append(
            f"| {s.clips:,} | {s.shards:,} | {s.store_tib:g} | {s.decode_nodes} | {s.gpu_nodes} | {s.hours:g} "
            f"| {s.rollouts_per_s:g} | {s.read_gib_per_s:g} | {s.gpu_busy:.0%} | {s.cost:,.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=41_687, help="pairs of one round (the paper's number)")
    parser.add_argument("--clips", type=int, default=10_000_000, help="clips of the largest corpus")
    parser.add_argument("--nodes", type=int, default=16, help="nodes with 8 GPUs for the largest corpus")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a clip")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    chosen = parser.parse_args(argv)
    if min(chosen.pairs, chosen.clips, chosen.nodes, chosen.seconds) <= 0:
        parser.error("--pairs, --clips, --nodes and --seconds must be above 0")
    a = Assumptions(clip_s=chosen.seconds)
    found = training(chosen.pairs, a)
    sizes = [(chosen.clips // 1000, 1), (chosen.clips // 10, max(1, chosen.nodes // 4)), (chosen.clips, chosen.nodes)]
    scales = [scale(max(1, clips), nodes, a) for clips, nodes in sizes]
    if chosen.json:
        print(json.dumps({"training": dataclasses.asdict(found), "scale": [dataclasses.asdict(s) for s in scales]}))
    else:
        print(table(found, scales, a))
    return 0


if __name__ == "__main__":
    sys.exit(main())
