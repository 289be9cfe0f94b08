"""The one door to Ray Train and DeepSpeed: pairs and their reference figures in, a LoRA adapter out.

    every worker:   order of pairs (seed, epoch) -> its share of each step -> trees -> log-probs -> AVEm-DPO
                    -> DeepSpeed backward (ZeRO 0-3) -> one optimizer step
    rank 0:         metrics of each step into the run's spool; adapter and its manifest when the round ends

The order depends on the seed alone, so a run with the same number of workers repeats itself.
"""

import dataclasses
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.errors import TrainingError
from avere_ray.placement import label_selector
from avere_ray.records import AdapterManifest, PreferencePair, ReferenceLogps

ADAPTER_MANIFEST = "adapter_manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """What one round of training works on; every path is absolute, since Ray Train changes the working directory."""

    pairs: Path
    """pairs.parquet."""
    reference: Path
    """reference.parquet."""
    decoded: Path
    """Folder of the decoded clips."""
    start: Path | None
    """Adapter folder to go on from; None starts a fresh adapter."""
    out: Path
    """Folder for the new adapter."""
    spool: Path
    """Folder of the metric spools."""
    source: str
    """Key of the stage, noted with its metrics: training it again measures the same points."""
    scratch: Path
    """Folder for Ray Train's own files; nothing in it is needed afterwards."""
    round: int
    first_step: int
    """Optimizer steps of the run before this round, so that metric steps go on rising."""
    base_digest: str
    decode_spec: str
    data_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShare:
    """One worker's part of one optimizer step."""

    step: int
    epoch: float
    micro: tuple[tuple[int, ...], ...]
    """Indices of pairs, micro-batch by micro-batch; every worker has the same number of each."""
    weights: tuple[tuple[float, ...], ...]
    """Weight of each pair's loss; 0 for the fill-ins of an incomplete step."""


def run_training(cfg: RunConfig, job: TrainJob) -> AdapterManifest:
    """Trains one round with Ray Train and returns the manifest of the adapter it wrote.

    Raises:
        TrainingError: a worker failed; the message carries its last words.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    train = cfg.train
    resources = {"CPU": train.cpus_per_worker, **({"GPU": 1.0} if train.use_gpu else {})}
    settings = {"config": cfg.model_dump(mode="json"), "job": _plain(job)}
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if train.use_gpu else "gloo", timeout_s=int(train.deadline_s)),
        scaling_config=ScalingConfig(
            num_workers=train.workers,
            use_gpu=train.use_gpu,
            resources_per_worker=resources,
            label_selector=label_selector(cfg.placement.learner) or None,
        ),
        run_config=TrainRunConfig(
            name=f"round-{job.round}-{time.time_ns()}",
            storage_path=str(job.scratch.resolve()),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray Train wraps what a worker raised in classes of its own
        raise TrainingError(f"training of round {job.round} failed: {_last_words(error)}") from error
    path = job.out / ADAPTER_MANIFEST
    if not path.is_file():
        raise TrainingError(f"training of round {job.round} ended without an adapter in {job.out}")
    return AdapterManifest(**json.loads(path.read_text(encoding="utf-8")))


def train_loop(settings: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train
    import torch

    cfg = RunConfig.model_validate(settings["config"])
    job = _job(settings["job"])
    context = ray.train.get_context()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    manifest = Learner(cfg, job, rank=context.get_world_rank(), world=context.get_world_size()).run()
    ray.train.report({"steps": manifest.step if manifest else 0})


class Learner:
    """One data-parallel worker of the learner."""

    def __init__(self, cfg: RunConfig, job: TrainJob, *, rank: int, world: int) -> None:
        from avere_ray.backbones import load_policy
        from avere_ray.backbones.qwen2_5_omni import add_lora, load_adapter
        from avere_ray.media_cache import MediaCache
        from avere_ray.reference import Precomputed
        from avere_ray.stages import read_records
        from avere_ray.store import DecodedStore

        self.cfg, self.job, self.rank, self.world = cfg, job, rank, world
        self.pairs = read_records(job.pairs, PreferencePair)
        self.reference = Precomputed(self.pairs, read_records(job.reference, ReferenceLogps))
        base = load_policy(cfg.model)
        self.policy = add_lora(base, rank=cfg.train.lora_rank, alpha=cfg.train.lora_alpha, seed=cfg.seed)
        if job.start is not None:
            load_adapter(self.policy, job.start)
        store = DecodedStore(job.decoded)
        self.cache = MediaCache(processor=base.processor, load=lambda clip_id: store[clip_id])

    def run(self) -> AdapterManifest | None:
        """Trains over the pairs; rank 0 writes and returns the adapter's manifest."""
        from avere_ray.metrics import MetricSpool

        os.environ.setdefault("DS_ACCELERATOR", "cuda" if self.cfg.train.use_gpu else "cpu")
        import deepspeed

        train = self.cfg.train
        total = count_steps(len(self.pairs), train.epochs, train.pairs_per_step)
        self.policy.train()
        engine, optimizer, _, _ = deepspeed.initialize(
            model=self.policy,
            model_parameters=[p for p in self.policy.parameters() if p.requires_grad],
            config=deepspeed_config(self.cfg, self.world),
        )
        spool = MetricSpool(self.job.spool, f"train-round{self.job.round}") if self.rank == 0 else None
        for share in step_shares(len(self.pairs), self.cfg, rank=self.rank, world=self.world):
            rate = train.learning_rate * rate_factor(share.step, total, train.warmup_ratio)
            for group in optimizer.param_groups:
                group["lr"] = rate
            began = time.monotonic()
            metrics = self._step(engine, share)
            if spool is not None:
                spool.log(
                    {
                        **metrics,
                        "learning_rate": rate,
                        "epoch": share.epoch,
                        "round": float(self.job.round),
                        "grad_norm": float(engine.get_global_grad_norm() or 0.0),
                        "timing_s/step": time.monotonic() - began,
                    },
                    step=self.job.first_step + share.step,
                    source=self.job.source,
                )
        return self._save(engine, total)

    def _step(self, engine: Any, share: StepShare) -> dict[str, float]:
        """One optimizer step; returns the metrics of all workers' pairs."""
        import torch

        sums: dict[str, Any] = {}
        for indices, weights in zip(share.micro, share.weights, strict=True):
            pairs = [self.pairs[i] for i in indices]
            loss_P, metrics = self._pair_losses(engine, pairs)
            weights_P = torch.tensor(weights)
            self._check_finite(loss_P.detach(), pairs)
            # DeepSpeed averages over workers and micro-batches; the weights undo both, so the loss is the pairs' mean.
            engine.backward((loss_P * weights_P).sum() * self.world * len(share.micro))
            engine.step()
            for name, value in metrics.items():
                known_P = ~value.isnan()
                part = torch.stack([torch.where(known_P, value, 0.0) * weights_P, known_P * weights_P]).sum(-1)
                sums[name] = sums.get(name, 0.0) + part
        return self._mean_over_workers(sums)

    def _pair_losses(self, engine: Any, pairs: Sequence[PreferencePair]) -> tuple[Any, dict[str, Any]]:
        from avere_ray.branches import Wanted, pair_samples
        from avere_ray.losses import make_objective, make_text_prior
        from avere_ray.pair_batch import loss_inputs

        self.cache.ensure(self.policy, pairs)
        rows = [pair_samples(self.cache, pair, Wanted()) for pair in pairs]
        scores = iter(engine([row.flat() for row in rows], self.cache.embeds))
        policy = [row.like(scores) for row in rows]
        reference = self.reference.figures(pairs)
        strength = make_text_prior(self.cfg.loss).gammas(tuple(p.modality for p in pairs))
        return make_objective(self.cfg.loss)(*loss_inputs(pairs, rows, policy, reference, strength, self.cfg.loss))

    def _check_finite(self, loss_P: Any, pairs: Sequence[PreferencePair]) -> None:
        """Stops before the optimizer step when a loss is not finite.

        Raises:
            TrainingError: names the pairs.
        """
        bad = [p.pair_id for p, ok in zip(pairs, loss_P.isfinite().tolist(), strict=True) if not ok]
        if bad:
            raise TrainingError(
                f"the loss is not finite for pairs {', '.join(bad[:5])}; the optimizer step was not "
                "taken. Lower train.learning_rate, or look at these pairs."
            )

    def _mean_over_workers(self, sums: dict[str, Any]) -> dict[str, float]:
        import torch
        import torch.distributed as dist

        names = sorted(sums)
        values = torch.stack([sums[name].float() for name in names])
        if self.world > 1:
            dist.all_reduce(values)
        return {name: total / weight for name, (total, weight) in zip(names, values.tolist(), strict=True) if weight}

    def _save(self, engine: Any, total: int) -> AdapterManifest | None:
        import deepspeed

        from avere_ray.backbones.qwen2_5_omni import save_adapter
        from avere_ray.stages import file_digest, write_json

        trained = [p for p in self.policy.parameters() if p.requires_grad]
        with deepspeed.zero.GatheredParameters(trained, enabled=self.cfg.train.zero_stage == 3):
            if self.rank == 0:
                save_adapter(self.policy, self.job.out)
        if self.rank != 0:
            return None
        manifest = AdapterManifest(
            version=self.job.round + 1,
            path=".",
            base_digest=self.job.base_digest,
            backbone=self.cfg.model.backbone,
            round=self.job.round,
            step=total,
            rank=self.cfg.train.lora_rank,
            alpha=self.cfg.train.lora_alpha,
            data_digest=self.job.data_digest,
            decode_spec=self.job.decode_spec,
            weights_sha256=file_digest(self.job.out / "adapter_model.safetensors"),
        )
        write_json(self.job.out / ADAPTER_MANIFEST, dataclasses.asdict(manifest))
        return manifest


def count_steps(num_pairs: int, epochs: int, pairs_per_step: int) -> int:
    """Optimizer steps of a round; the last one may be incomplete."""
    return math.ceil(num_pairs * epochs / pairs_per_step)


def rate_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Linear rise over the warm-up, then linear fall to 0 after the last step."""
    warmup = max(1, round(total * warmup_ratio))
    return (step + 1) / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup + 1))


def step_shares(num_pairs: int, cfg: RunConfig, *, rank: int, world: int) -> Iterator[StepShare]:
    """One worker's share of every step of a round: passes in seeded order, nothing dropped.

    The last step may have fewer pairs; it is filled up with pairs of weight 0, so that all workers do the same number
    of forward passes.
    """
    train = cfg.train
    order = [
        i
        for epoch in range(train.epochs)
        for i in random.Random(f"{cfg.seed}/{epoch}").sample(range(num_pairs), num_pairs)
    ]
    per_worker = train.pairs_per_step // world
    for step, start in enumerate(range(0, len(order), train.pairs_per_step)):
        picked = order[start : start + train.pairs_per_step]
        weights = [1.0 / len(picked)] * len(picked) + [0.0] * (train.pairs_per_step - len(picked))
        picked = (picked + order[:1] * train.pairs_per_step)[: train.pairs_per_step]
        mine = slice(rank * per_worker, (rank + 1) * per_worker)
        yield StepShare(
            step=step,
            epoch=start / num_pairs,
            micro=_split(picked[mine], train.micro_pairs),
            weights=_split(weights[mine], train.micro_pairs),
        )


def deepspeed_config(cfg: RunConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's settings for this run; torch's AdamW, so that nothing has to be compiled for it."""
    train = cfg.train
    return {
        "train_micro_batch_size_per_gpu": train.micro_pairs,
        "gradient_accumulation_steps": train.pairs_per_step // world // train.micro_pairs,
        "train_batch_size": train.pairs_per_step,
        "gradient_clipping": train.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train.learning_rate,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": train.weight_decay,
                "torch_adam": True,
            },
        },
        "bf16": {"enabled": cfg.model.dtype == "bfloat16"},
        "zero_optimization": {"stage": train.zero_stage, "overlap_comm": False},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000,
        "wall_clock_breakdown": False,
    }


_PATHS = ("pairs", "reference", "decoded", "start", "out", "spool", "scratch")


def _job(values: dict[str, Any]) -> TrainJob:
    """The inverse of `_plain`."""
    return TrainJob(**{k: Path(v) if k in _PATHS and v is not None else v for k, v in values.items()})  # type: ignore[arg-type]


def _plain(job: TrainJob) -> dict[str, Any]:
    return {
        k: str(v.resolve()) if isinstance(v, Path) else v
        for k, v in ((f.name, getattr(job, f.name)) for f in dataclasses.fields(job))
    }


def _split(values: list[Any], size: int) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(values[i : i + size]) for i in range(0, len(values), size))


def _padded(values: Any, width: int) -> Any:
    import torch

    return torch.cat([values, values.new_zeros(width - len(values))])


def _last_words(error: BaseException) -> str:
    """The innermost cause's message."""
    text = str(error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
