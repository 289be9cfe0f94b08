"""What every worker of a round does, from its first share to the saved adapter.

share of a step -> micro-batches: encode, forward, loss, backward
                -> one exchange with the other workers: is everything finite, and what are the metrics
                -> optimizer step -> metrics (rank 0) -> now and then a checkpoint
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.config import RunConfig
from avere_ray.errors import StorageError, TrainingError
from avere_ray.learner import checkpoints, guard, zero
from avere_ray.learner.checkpoints import Checkpoint
from avere_ray.learner.explain import explain_pair
from avere_ray.learner.job import ADAPTER_MANIFEST, FIRST_PAIR, MODEL_FOLDER, TEXT_PRIOR, TrainJob
from avere_ray.learner.meters import STAGES, Clock, Sums, peak_bytes
from avere_ray.learner.order import StepShare, count_steps, most_passes, rate_factor, step_shares
from avere_ray.learner.stream import Dealt, read_pairs
from avere_ray.records import AdapterManifest, DecodedClip, PreferencePair, ReferenceLogps
from avere_ray.stages import file_digest, full_disk_named, read_records, write_json, write_text

if TYPE_CHECKING:
    from avere_ray.learner.objective import Scored


class Learner:
    """One data-parallel worker of the learner."""

    def __init__(self, cfg: RunConfig, job: TrainJob, *, rank: int, world: int) -> None:
        from avere_ray.backbones import backbone
        from avere_ray.embed_folder import EmbedFolder
        from avere_ray.learner.objective import PairObjective
        from avere_ray.media_cache import MediaCache
        from avere_ray.store import DecodedStore

        self.cfg, self.job, self.rank, self.world = cfg, job, rank, world
        pairs = read_pairs(job.pairs)
        self.owed = list(step_shares(len(pairs), cfg, rank=rank, world=world, sizes=job.sizes()))
        self.passes = most_passes(len(pairs), cfg, world=world, sizes=job.sizes())
        self.total = count_steps(len(pairs), cfg.train.epochs, cfg.train.pairs_per_step)
        self.num_pairs = len(pairs)
        self.attempt = checkpoints.attempt(job.checkpoints)
        self.policy, self.module = open_policy(cfg, job)
        self.family = backbone(cfg.model.backbone)
        self.family.set_towers_apart(self.policy)
        self._store = DecodedStore(job.decoded)
        self._sent: dict[str, DecodedClip] = {}
        quota = int(cfg.cache.features_gb * 2**30)
        folder = EmbedFolder(job.features, quota) if quota else None
        self.cache = MediaCache(processor=self.policy.processor, load=self._clip, folder=folder)
        self.objective = PairObjective(cfg.loss, self.policy, self.cache, self._reference(pairs))
        self.clock = Clock(cuda=cfg.train.use_gpu)

    def run(self, stream: Callable[[list[StepShare]], Iterator[Dealt]]) -> AdapterManifest | None:
        """Trains from the latest checkpoint to the end; rank 0 writes and returns the adapter's manifest.

        Args:
            stream: gives what belongs to the shares that are left, in their order.

        Raises:
            TrainingError: see `learner.guard`; the deadline has passed; or the stream is out of order.
        """
        engine, optimizer, first = self._begin()
        began = time.monotonic()
        owed = self.owed[first:]
        dealt = stream(owed)
        for share in owed:
            with self.clock("data_wait"):
                row = next(dealt)
            rate = self._set_rate(optimizer, share.step)
            self._check_attempt()
            metrics = self._step(engine, row, deadline=began + self.cfg.train.deadline_s)
            self._log(share, {**metrics, "learning_rate": rate})
            if (share.step + 1) % self.cfg.train.checkpoint_every == 0:
                self._checkpoint(engine, share, metrics)
        if next(dealt, None) is not None:
            raise TrainingError(f"worker {self.rank} was sent more shares than it is owed")
        return self._save()

    def _begin(self) -> tuple[Any, Any, int]:
        """Engine and optimizer as the latest checkpoint left them, and the next step."""
        cfg, job = self.cfg, self.job
        self.module.train()
        self.policy.checkpoint_activations(cfg.train.gradient_checkpointing)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.watch = guard.Watch(trained)
        engine, optimizer = zero.start_engine(self.module, cfg, self.passes)
        self.family.place_towers(self.policy, engine.device)
        found = checkpoints.latest(job.checkpoints)
        same = job.start is None or cfg.train.reference == "previous_round"
        self.fresh = same and found is None
        """Whether the policy equals its reference."""
        if found is None:
            self._go_on_with_the_prior()
        else:
            zero.load_state(engine, checkpoints.step_folder(job.checkpoints, found.step), self.rank)
            self.objective.text_prior.load_state_dict(found.controller)
        first = found.step if found else 0
        self.spool = None
        if self.rank == 0:
            self.spool = checkpoints.ReplaySafeSpool(job.spool, job.writer, job.checkpoints, job.source)
        if len({answer["first"] for answer in guard.agree({"first": first})}) > 1:
            raise TrainingError(
                f"the workers do not see the same checkpoints in {job.checkpoints}; is it shared by all?"
            )
        return engine, optimizer, first

    def _go_on_with_the_prior(self) -> None:
        """Sets the text prior as the round before has left it, if that was one of the same kind."""
        if self.job.start is None:
            return
        path = self.job.start / TEXT_PRIOR
        if path.is_file() and self.cfg.loss.text_prior == "adaptive":
            self.objective.text_prior.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    def _reference(self, pairs: Sequence[PreferencePair]) -> Any:
        """Where reference figures come from; see `train.reference_source`."""
        from avere_ray.learner.objective import reference_branches
        from avere_ray.logp_cache import LogpCache
        from avere_ray.reference import AdapterOff, Cached, Precomputed

        cfg, job = self.cfg, self.job
        if cfg.train.reference_source == "precomputed":
            return Precomputed(pairs, read_records(job.reference, ReferenceLogps))
        if cfg.train.reference_source == "adapter_off":
            return AdapterOff(self.policy, self.cache, reference_branches(cfg.loss))
        source = AdapterOff(self.policy, self.cache)
        return Cached(source, LogpCache(job.logps), weights=job.base_digest, dtype=cfg.model.dtype)

    def _check_attempt(self) -> None:
        """Stops a worker that outlived its driver when the round has been started again.

        Raises:
            TrainingError: another run writes to the checkpoint folder now.
        """
        if self.rank == 0 and checkpoints.attempt(self.job.checkpoints) != self.attempt:
            raise TrainingError(f"another run has taken over {self.job.checkpoints}; this one ends without writing")

    def _step(self, engine: Any, row: Dealt, deadline: float) -> dict[str, float]:
        """One optimizer step; returns the metrics of all workers' pairs."""
        began, calls = time.monotonic(), self.cache.encoder_calls
        self.watch.bad.clear()
        self._sent = row.clips
        sums = Sums()
        passes = list(zip(row.share.micro, row.share.weights, strict=True))
        for number, (indices, weights) in enumerate(passes, start=1):
            pairs = [row.pairs[i] for i in indices]
            with self.watch.micro_batch(pairs):
                scored = self._forward(engine, pairs, first=row.share.step == 0 and number == 1)
                self._check(scored, pairs, row.share.step)
                weights_P = scored.loss_P.new_tensor(weights)
                with self.clock("backward"):
                    loss = (scored.loss_P * weights_P).sum() * self.world
                    zero.accumulate(engine, loss, last=number == len(passes))
            sums.add(scored.metrics, weights_P)
            sums.gain(self.objective.gains(pairs, scored, weights_P))
            sums.count("tokens", scored.tokens)
            sums.count("pairs", sum(w > 0 for w in weights))
        sums.count("encoder_calls", self.cache.encoder_calls - calls)
        everyone = guard.agree(
            {"bad": self.watch.bad, "sums": sums, "peak": peak_bytes(), "late": time.monotonic() > deadline}
        )
        self._refuse(everyone, row.share.step)
        with self.clock("optimizer"), guard.optimizer_step(list(row.pairs.values())):
            norm = zero.grad_norm(engine)
            engine.step()
            norm = engine.get_global_grad_norm() if norm is None else norm
        self.objective.adapt([answer["sums"].gains for answer in everyone])
        return {**self._metrics(everyone, time.monotonic() - began), "grad_norm": float(norm)}

    def _forward(self, engine: Any, pairs: list[PreferencePair], *, first: bool) -> "Scored":
        with self.clock("encode"):
            rows = self.objective.rows(pairs)
        with self.clock("forward"):
            if first and self.rank == 0:
                text = explain_pair(self.policy.processor, pairs[0], rows[0])
                write_text(self.job.checkpoints / FIRST_PAIR, text)
                print(text, flush=True)
            return self.objective.score(engine, pairs, rows)

    def _check(self, scored: "Scored", pairs: list[PreferencePair], step: int) -> None:
        from avere_ray.learner.objective import start_tolerance

        self.watch.losses(scored.loss_P, pairs)
        if step == 0 and self.fresh:
            allowed = start_tolerance(self.cfg.loss, guard.ROUNDING[self.cfg.model.dtype])
            self.watch.identity(scored.start_loss_P, scored.expected_start_P, pairs, allowed)

    def _refuse(self, everyone: list[dict[str, Any]], step: int) -> None:
        guard.refuse({pair: why for answer in everyone for pair, why in answer["bad"].items()}, step)
        if any(answer["late"] for answer in everyone):
            raise TrainingError(
                f"training took longer than train.deadline_s = {self.cfg.train.deadline_s:g} s and was stopped at step "
                f"{step}. Raise the limit and run again; it goes on from the latest checkpoint."
            )

    def _metrics(self, everyone: list[dict[str, Any]], seconds: float) -> dict[str, float]:
        total = Sums()
        for answer in everyone:
            total.merge(answer["sums"])
        pairs = max(1, total.counts["pairs"])
        times = self.clock.take()
        seconds += times.get("data_wait", 0.0)
        return {
            **total.means(),
            **self.objective.text_prior.metrics(),
            **{f"timing_s/{name}": times.get(name, 0.0) for name in STAGES},
            "timing_s/step": seconds,
            "num_tokens": float(total.counts["tokens"]),
            "perf/tokens_per_second": total.counts["tokens"] / seconds,
            "perf/peak_memory_gb": max(answer["peak"] for answer in everyone) / 2**30,
            "encoder/calls_per_pair": total.counts["encoder_calls"] / pairs,
        }

    def _log(self, share: StepShare, metrics: dict[str, float]) -> None:
        if self.spool is not None:
            self.spool.log(
                {**metrics, "epoch": share.epoch, "round": float(self.job.round)},
                step=self.job.first_step + share.step,
            )

    def _set_rate(self, optimizer: Any, step: int) -> float:
        train = self.cfg.train
        rate = train.learning_rate * rate_factor(step, self.total, train.warmup_ratio)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _clip(self, clip_id: str) -> DecodedClip:
        """A decoded clip as it came with the share, else from the store."""
        return self._sent[clip_id] if clip_id in self._sent else self._store[clip_id]

    def _checkpoint(self, engine: Any, share: StepShare, metrics: dict[str, float]) -> None:
        """Writes a checkpoint, manifest last; all workers take part.

        Raises:
            StorageError: the disk is full; nothing of the checkpoint stays, so that there is room to say so.
        """
        folder = checkpoints.step_folder(self.job.checkpoints, share.step + 1)
        try:
            with full_disk_named(folder):
                self._write_checkpoint(engine, share, metrics, folder)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _write_checkpoint(self, engine: Any, share: StepShare, metrics: dict[str, float], folder: Path) -> None:
        cfg, job = self.cfg, self.job
        if self.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        guard.agree({})
        zero.save_state(engine, folder, self.rank)
        if cfg.train.tuning == "lora":
            self._save_adapter(folder / checkpoints.ADAPTER)
        guard.agree({})
        if self.rank == 0:
            made = Checkpoint(
                step=share.step + 1,
                cursor=share.cursor,
                epoch=share.cursor / self.num_pairs,
                key=job.key,
                world=self.world,
                zero_stage=cfg.train.zero_stage,
                dtype=cfg.model.dtype,
                base_digest=job.base_digest,
                mlflow_run_id=_mlflow_run(job),
                controller=self.objective.text_prior.state_dict(),
                metrics=metrics,
            )
            checkpoints.finish(folder, made)
            checkpoints.prune(job.checkpoints, cfg.train.keep_checkpoints, cfg.train.keep_by)
        guard.agree({})

    def _save_adapter(self, folder: Any) -> None:
        trained = [p for p in self.module.parameters() if p.requires_grad]
        with zero.gathered(trained, zero_stage=self.cfg.train.zero_stage):
            if self.rank == 0:
                self.family.save_adapter(self.policy, folder)

    def _save_model(self, folder: Any) -> None:
        """The whole model after full fine-tuning, gathered one weight at a time."""
        whole = {}
        for name, parameter in self.family.trained_names(self.policy, self.module).items():
            with zero.gathered([parameter], zero_stage=self.cfg.train.zero_stage):
                if self.rank == 0:
                    whole[name] = parameter.detach().cpu().clone()
        if self.rank == 0:
            self.family.save_model(whole, self.cfg.model.path, folder)

    def _save(self) -> AdapterManifest | None:
        """Writes what was trained, and its manifest last.

        Raises:
            StorageError: the disk is full.
        """
        from avere_ray.backbones import model_digest

        cfg, job, lora = self.cfg, self.job, self.cfg.train.tuning == "lora"
        with full_disk_named(job.out):
            self._save_adapter(job.out) if lora else self._save_model(job.out / MODEL_FOLDER)
        if self.rank != 0:
            return None
        if cfg.loss.text_prior == "adaptive":
            write_json(job.out / TEXT_PRIOR, self.objective.text_prior.state_dict())
        manifest = AdapterManifest(
            version=job.round + 1,
            path="." if lora else MODEL_FOLDER,
            base_digest=job.base_digest,
            backbone=cfg.model.backbone,
            round=job.round,
            step=self.total,
            rank=cfg.train.lora_rank if lora else 0,
            alpha=cfg.train.lora_alpha if lora else 0.0,
            data_digest=job.data_digest,
            decode_spec=job.decode_spec,
            weights_sha256=file_digest(job.out / "adapter_model.safetensors")
            if lora
            else model_digest(job.out / MODEL_FOLDER),
        )
        write_json(job.out / ADAPTER_MANIFEST, dataclasses.asdict(manifest))
        return manifest


def open_policy(cfg: RunConfig, job: TrainJob) -> tuple[Any, Any]:
    """The policy as the round begins with it, and the module that is trained."""
    from avere_ray.backbones import backbone, load_policy

    family, base = backbone(cfg.model.backbone), load_policy(cfg.model)
    if cfg.train.tuning == "full":
        return base, family.unfreeze_language_model(base, projectors=cfg.train.projectors)
    policy = family.add_lora(base, rank=cfg.train.lora_rank, alpha=cfg.train.lora_alpha, seed=cfg.seed)
    if job.start is not None:
        family.load_adapter(policy, job.start)
    return policy, policy


def _mlflow_run(job: TrainJob) -> str | None:
    """Id of the run's MLflow run, once the server has made it."""
    try:
        return json.loads(job.mlflow.read_text(encoding="utf-8")).get("run_id")
    except (OSError, ValueError):
        return None


def set_threads() -> None:
    """As many threads as Ray gave this worker, one at least."""
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
