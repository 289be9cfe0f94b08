"""What a run tells MLflow: figures, and a child run for each stage of each round, with data sets, answers and models.

    run                    figures of every stage over the optimizer steps, params, tags, the last adapter
      evals                evaluation before training: figures, answers
      round 0              rollouts, verdicts, pairs, reference, adapters, evals: a child run each

An adapter is a logged model with its scores and the figures of its last step; so is every checkpoint that was kept.
A stage that is reused has the key under which it was told, so that everything is in MLflow once.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.learner import checkpoints
from avere_ray.learner.job import writer_of
from avere_ray.metrics import now_ms, read_events
from avere_ray.records import Verdict
from avere_ray.stages import StageManifest, file_digest, read_records
from avere_ray.synthetic.drawn import drawn_tags
from avere_ray.tracking.nested import ANSWERS, ANSWERS_TAG
from avere_ray.tracking.registry import ADAPTER, NEWEST, adapter_digest, evaluated_tag
from jobs.exams import annotation_path
from jobs.layout import finished, require, stage_path
from jobs.rollouts import read_rollouts

TABLE_ROWS = 10
"""Readable rollouts shown per round."""


@contextlib.contextmanager
def tracked(cfg: RunConfig, tags: Mapping[str, str] | None = None) -> Iterator["Log"]:
    """The tracking of one verb that does a part of a run; continues the run's MLflow run where there is one. `tags`:
    beside those that every run has."""
    from avere_ray.tracking import Tracker

    with Tracker(cfg.run_dir, cfg.tracking, run_name=cfg.name) as tracker:
        tracker.start(cfg.resolved(), {**run_tags(cfg), **(tags or {})})
        yield Log(tracker)


def run_tags(cfg: RunConfig) -> dict[str, str]:
    """Which model a run is about, and the world its clips were drawn from, if they were."""
    return {**base_tags(cfg), **drawn_tags(cfg.resolved())}


def base_tags(cfg: RunConfig) -> dict[str, str]:
    """Which model a run is about."""
    from avere_ray.backbones import model_digest

    if cfg.evaluation.endpoint.url:
        return {"base.digest": "remote", "endpoint.model": cfg.evaluation.endpoint.model}
    return {"base.digest": model_digest(cfg.model.path)}


class Log:
    """Sends what each stage did to MLflow, once: a stage that is reused has the key under which it was logged."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker
        self.steps = 0

    def __call__(self, stage: str, work: Callable[[], StageManifest | None]) -> StageManifest | None:
        """Runs one stage ("pairs/round=0") and logs its counts, figures and seconds at the optimizer step reached."""
        began, began_ms = time.monotonic(), now_ms()
        manifest = work()
        if manifest is None:
            return None
        name = stage.partition("/")[0]
        figures = _figures(name, manifest)
        if name == "adapters":
            self.steps += int(manifest.summary["steps"])
        seconds = time.monotonic() - began
        if name == "decoded":  # the first rollouts were sampled meanwhile
            seconds = min(seconds, manifest.seconds)
        self.tracker.log(figures | {f"timing_s/{name}": seconds}, step=self.steps, source=manifest.key)
        self.child(stage, manifest, began_ms)
        return manifest

    def child(
        self,
        stage: str,
        manifest: StageManifest,
        began_ms: int,
        *,
        model: str = "",
        model_key: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Notes a stage as a child run; returns its name among the children."""
        name, _, round_ = stage.partition("/")
        child = name if round_ in ("", "before") else f"{round_}/{name}"
        about = f", {round_.replace('=', ' ')}" if round_ else ""
        self.tracker.log_child(
            child,
            run_name=name + about,
            key=manifest.key,
            metrics=_figures(name, manifest) | {"seconds": manifest.seconds},
            step=self.steps,
            start_ms=min(began_ms, now_ms() - round(1000 * manifest.seconds)),
            params={"stage": name, "inputs": str(manifest.inputs), "version": manifest.version},
            tags={"stage": stage, "output.digest": manifest.output_digest, **(tags or {})},
            model=model,
            model_key=model_key,
        )
        return child

    def source(self, cfg: RunConfig) -> None:
        """Logs what a corpus lists and what of it cannot be used, after it was read; other clips have no such stage."""
        manifest = finished(cfg, "source") if cfg.data.source.kind != "clips" else None
        if manifest is not None:
            self.tracker.log(_figures("source", manifest), step=self.steps, source=manifest.key)
            self.child("source", manifest, now_ms())

    def clips(self, cfg: RunConfig) -> None:
        """Notes the clips of a run, after they were decoded, as a data set."""
        from jobs.decode import clips_folder

        manifest = finished(cfg, "decoded")
        if manifest is None:
            return
        self.tracker.set_tags({"data.digest": manifest.output_digest})
        counts = {"clips": manifest.used, "dropped": manifest.dropped}
        self.tracker.log_dataset("clips", manifest.output_digest, source=str(clips_folder(cfg)), context="training",
                                 profile=counts)  # fmt: skip

    def preferences(self, cfg: RunConfig, round_: int, work: Callable[[], StageManifest]) -> None:
        """Runs and logs the stages from rollouts to reference figures of a round."""
        began_ms = now_ms()

        def pairs() -> StageManifest | None:
            work()  # gives the last of its stages, which has a child of its own
            return finished(cfg, "pairs", round_)

        self(f"pairs/round={round_}", pairs)
        for name in ("rollouts", "verdicts", "reference"):
            manifest = finished(cfg, name, round_)
            if manifest is not None:
                self.child(f"{name}/round={round_}", manifest, began_ms)

    def training(self, cfg: RunConfig, round_: int, work: Callable[[], StageManifest]) -> None:
        """Runs and logs the training of a round: its pairs as a data set, its adapter and checkpoints as models."""
        manifest = self(f"adapters/round={round_}", work)
        pairs = finished(cfg, "pairs", round_)
        child, folder = f"round={round_}/adapters", stage_path(cfg, "adapters", round_)
        if manifest is None or pairs is None:
            return
        counts = {"pairs": pairs.used, "queries without a pair": pairs.dropped}
        self.tracker.log_dataset(f"pairs, round {round_}", pairs.output_digest, child=child, context="training",
                                 source=str(stage_path(cfg, "pairs", round_)), profile=counts)  # fmt: skip
        tags = {"adapter.version": str(round_ + 1), **base_tags(cfg)}
        self.tracker.set_tags({"adapter.version": tags["adapter.version"]})
        first = self.steps - int(manifest.summary["steps"])
        self._checkpoints(cfg, round_, first=first, tags=tags, child=child, key=manifest.key)
        files = folder if (folder / "adapter_model.safetensors").is_file() else None
        last = _last_figures(stage_path(cfg, "metrics") / f"{writer_of(round_)}.jsonl")
        self.tracker.log_model(_model(round_), files, step=self.steps, tags=tags, child=child, key=manifest.key,
                               metrics=last)  # fmt: skip

    def _checkpoints(
        self, cfg: RunConfig, round_: int, *, first: int, tags: dict[str, str], child: str, key: str
    ) -> None:
        """The checkpoints that a round kept, each as a model with the figures of its last step; one of the very last
        step is the round's adapter. `first`: steps of the rounds before."""
        root = stage_path(cfg, "checkpoints", round_)
        for found in checkpoints.saved(root):
            adapter, step = checkpoints.step_folder(root, found.step) / checkpoints.ADAPTER, first + found.step
            if step == self.steps:
                continue
            self.tracker.log_model(
                f"{_model(round_)}-step{step:06d}",
                adapter if adapter.is_dir() else None,
                step=step,
                tags=tags | {"checkpoint.epoch": f"{found.epoch:g}"},
                child=child,
                key=key,
                metrics=found.metrics,
            )

    def evaluation(self, cfg: RunConfig, round_: int, work: Callable[[], StageManifest]) -> StageManifest:
        """Runs and logs an evaluation: figures, answers, the questions as data sets, and the adapter."""
        began, began_ms = time.monotonic(), now_ms()
        manifest = work()
        self.steps = self.steps or _steps(cfg, round_)
        stage = "evals/before" if round_ < 0 else f"evals/round={round_}"
        figures = _figures("evals", manifest) | {"timing_s/evals": time.monotonic() - began}
        self.tracker.log(figures, step=self.steps, source=manifest.key)
        answers, adapter = f"{ANSWERS}/{manifest.key}", finished(cfg, "adapters", round_) if round_ >= 0 else None
        child = self.child(
            stage,
            manifest,
            began_ms,
            model=_model(round_) if round_ >= 0 else "",
            model_key=adapter.key if adapter is not None else "",
            tags={ANSWERS_TAG: answers},
        )
        for name in cfg.evaluation.benchmarks:
            self._questions(cfg, name, child)
        self.tracker.log_artifacts(stage_path(cfg, "evals", round_), answers, child=child)
        if adapter is not None:
            self.adapter(cfg, round_, evaluated=True)
        return manifest

    def adapter(self, cfg: RunConfig, round_: int, *, evaluated: bool) -> None:
        """Sends the adapter of a round, which never changes there: its folder is called by the digest of its weights.
        A model that was trained in full is not sent."""
        folder = stage_path(cfg, "adapters", round_)
        digest = adapter_digest(folder)
        if digest:
            self.tracker.set_tags({NEWEST: digest} | ({evaluated_tag(round_): digest} if evaluated else {}))
            self.tracker.log_artifacts(folder, f"{ADAPTER}/{digest}")

    def round(self, cfg: RunConfig, round_: int) -> None:
        """Logs the verdicts of a round, and shows a readable sample of its rollouts."""
        from jobs.report import print_rollout_sample, sample_table

        queries, rollouts = read_rollouts(cfg, round_)
        verdicts = read_records(stage_path(cfg, "verdicts", round_) / "verdicts.parquet", Verdict)
        by_id = {q.query_id: q for q in queries}
        labels = [v.label.value for v in verdicts]
        counts = {name: labels.count(name) for name in set(labels)}
        figures = {f"verdicts/{name}": n / len(labels) for name, n in counts.items()}
        figures |= {f"verdicts/{name}_count": float(n) for name, n in counts.items()}
        self.tracker.log(figures, step=self.steps, source=require(cfg, "verdicts", round_).key)
        table = sample_table(rollouts, verdicts, by_id, TABLE_ROWS)
        self.tracker.log_table(f"rollouts_round_{round_}.json", table)
        print_rollout_sample(rollouts, verdicts, by_id, 6)

    def end_round(self, cfg: RunConfig, round_: int, began_ms: int) -> None:
        """Ends the child run of a round."""
        manifest = finished(cfg, "adapters", round_)
        if manifest is not None:
            self.tracker.log_child(f"round={round_}", run_name=f"round {round_}", key=manifest.key, metrics={},
                                   step=self.steps, start_ms=began_ms, tags={"stage": f"round={round_}"})  # fmt: skip

    def _questions(self, cfg: RunConfig, name: str, child: str) -> None:
        path = annotation_path(cfg, name)
        if path.is_file():
            self.tracker.log_dataset(name, file_digest(path)[:32], source=str(path), context="evaluation", child=child,
                                     profile={"bytes": path.stat().st_size})  # fmt: skip


def _figures(name: str, manifest: StageManifest) -> dict[str, float]:
    numbers = {k: v for k, v in manifest.summary.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    figures = {f"{name}/{k}": float(v) for k, v in numbers.items()}
    figures |= {f"{name}/inputs": float(manifest.inputs), f"{name}/dropped": float(manifest.dropped)}
    figures |= {f"{name}/dropped_{reason}": float(n) for reason, n in manifest.summary.get("drops", {}).items()}
    return figures | {f"eval/{k}": float(v) for k, v in manifest.summary.get("metrics", {}).items()}


def _steps(cfg: RunConfig, round_: int) -> int:
    """Optimizer steps up to a round's evaluation."""
    manifests = [finished(cfg, "adapters", k) for k in range(round_ + 1)]
    return sum(int(manifest.summary["steps"]) for manifest in manifests if manifest is not None)


def _last_figures(spool: Path) -> dict[str, float]:
    """Figures of the last step that a learner logged; none where there is no spool."""
    last: dict[str, float] = {}
    offset = 0
    while events := read_events(spool, offset):
        offset = events[-1].end
        last = next((dict(e.metrics) for e in reversed(events) if e.kind == "metrics"), last)
    return last


def _model(round_: int) -> str:
    return f"adapter-round{round_}"
