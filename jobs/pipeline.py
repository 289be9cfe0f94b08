"""The whole loop: clips in, a better model out.

    synth -> decode -> evaluate base
      -> [ rollouts -> judge -> swap -> pairs -> reference -> train ] x rounds
      -> evaluate

The rollouts of the first round begin while later clips are still being decoded (`jobs.streaming`). With data.pairs it
is decode -> reference -> train, on the pairs of these preference data.

Each stage reads the folder of the one before and writes its own; finished stages are reused, so the same command goes
on where an interrupted run stopped.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.stages import StageManifest, read_records, write_text
from jobs import build_preferences, decode, evaluate, streaming, synth, train
from jobs.command import run_command
from jobs.corpus import check_clips
from jobs.layout import stage_path
from jobs.room import check_room
from jobs.session import ray_session

_SAMPLE = 6


def run(cfg: RunConfig) -> dict[str, Any]:
    """Runs every stage that is not finished and returns the report, also written to RUN/report.json."""
    from avere_ray.backbones import check_model_folder
    from avere_ray.tracking import Tracker

    check_model_folder(cfg.model.path)
    check_clips(cfg)
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    with Tracker(cfg.run_dir, cfg.tracking, run_name=cfg.name) as tracker:
        tracker.start(cfg.resolved())
        _stages(cfg, Log(tracker))
        tracker.log_artifacts(stage_path(cfg, "adapters", cfg.rounds - 1), "adapter")
        return _report(cfg, tracker)


def _stages(cfg: RunConfig, log: "Log") -> None:
    """The story of a run, in order."""
    from jobs.workers import Workers

    if cfg.data.pairs.path is not None:
        return _train_on_given_pairs(cfg, log)
    log("clips", partial(synth.run, cfg))
    with ray_session(cfg.ray), Workers(cfg) as workers:
        check_room(cfg, "pipeline")
        log("decoded", partial(streaming.run, cfg, workers))
        log("evals/before", partial(evaluate.run, cfg, -1, workers))
        for k in range(cfg.rounds):
            log(f"pairs/round={k}", partial(build_preferences.run, cfg, k, workers))
            log.round(cfg, k)
            log(f"adapters/round={k}", partial(train.run, cfg, k))
            if cfg.evaluation.every_round or k == cfg.rounds - 1:
                log(f"evals/round={k}", partial(evaluate.run, cfg, k, workers))


def _train_on_given_pairs(cfg: RunConfig, log: "Log") -> None:
    """The story of a run on preference data that are there already: no engine starts."""
    from jobs.workers import Workers

    with ray_session(cfg.ray), Workers(cfg) as workers:
        check_room(cfg, "pipeline")
        log("decoded", partial(decode.run, cfg))
        log("pairs/round=0", partial(build_preferences.run, cfg, 0, workers))
        log("adapters/round=0", partial(train.run, cfg, 0))


class Log:
    """Sends what each stage did to MLflow, once: a stage that is reused has the key under which it was logged."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker
        self.steps = 0

    def __call__(self, stage: str, work: Callable[[], StageManifest | None]) -> None:
        """Runs one stage and logs its counts, figures and seconds at the optimizer step reached."""
        began = time.monotonic()
        manifest = work()
        if manifest is None:
            return
        name, seconds = stage.split("/")[0], time.monotonic() - began
        if name == "decoded":  # the first rollouts were sampled meanwhile
            seconds = min(seconds, manifest.seconds)
        figures = {f"{name}/{k}": float(v) for k, v in _numbers(manifest.summary).items()}
        figures |= {
            f"{name}/inputs": float(manifest.inputs),
            f"{name}/dropped": float(manifest.dropped),
            f"timing_s/{name}": seconds,
        }
        if name == "adapters":
            self.steps += int(manifest.summary["steps"])
        if name == "evals":
            figures |= {f"eval/{k}": v for k, v in manifest.summary["metrics"].items()}
        self.tracker.log(figures, step=self.steps, source=manifest.key)

    def round(self, cfg: RunConfig, round_: int) -> None:
        """Logs the verdicts of a round, and shows a readable sample of its rollouts."""
        from avere_ray.records import Verdict
        from jobs.report import print_rollout_sample, sample_text

        queries, rollouts = build_preferences.read_rollouts(cfg, round_)
        verdicts = read_records(stage_path(cfg, "verdicts", round_) / "verdicts.parquet", Verdict)
        by_id = {q.query_id: q for q in queries}
        labels = [v.label.value for v in verdicts]
        shares = {f"verdicts/{name}": labels.count(name) / len(labels) for name in set(labels)}
        self.tracker.log(shares, step=self.steps, source=build_preferences.require(cfg, "verdicts", round_).key)
        self.tracker.log_text(f"rollouts_round_{round_}.txt", sample_text(rollouts, verdicts, by_id, 10))
        print_rollout_sample(rollouts, verdicts, by_id, _SAMPLE)


def _numbers(summary: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in summary.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _report(cfg: RunConfig, tracker: Any) -> dict[str, Any]:
    from jobs.report import build_report, build_training_report, print_summary, write_report

    tracker.log_artifacts(cfg.run_dir / "config.yaml", "run")
    tracker.finish()
    tracker.close()
    build = partial(build_report, rounds=cfg.rounds) if cfg.data.pairs.path is None else build_training_report
    report = build(cfg.run_dir, seed=cfg.seed, mlflow_run_id=tracker.run_id, mlflow_tracking_uri=tracker.uri)
    write_report(cfg.run_dir, report)
    print_summary(report, cfg.run_dir)
    return report


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray pipeline", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
