"""The whole loop: clips in, a better model out.

    synth -> decode -> evaluate base
      -> [ rollouts -> judge -> swap -> pairs -> reference -> train ] x rounds
      -> evaluate

The rollouts of the first round begin while later clips are still being decoded (`jobs.streaming`); with rollout.overlap
those of the next round are sampled while a round trains (`jobs.overlap`). With data.pairs.path it is decode ->
reference -> train, on the pairs of these preference data; with data.pairs.source answers a round has neither rollouts
nor a judge.

Each stage reads the folder of the one before and writes its own; finished stages are reused, so the same command goes
on where an interrupted run stopped.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.metrics import now_ms
from avere_ray.stages import write_text
from jobs import build_preferences, decode, evaluate, overlap, streaming, synth, train
from jobs.command import run_command
from jobs.inputs import check_inputs
from jobs.nodes import watched_nodes
from jobs.room import check_room
from jobs.session import ray_session
from jobs.tracked import Log, run_tags


def run(cfg: RunConfig) -> dict[str, Any]:
    """Runs every stage that is not finished and returns the report, also written to RUN/report.json."""
    from avere_ray.backbones import check_model_folder
    from avere_ray.tracking import Tracker

    check_model_folder(cfg.model.path)
    check_inputs(cfg)
    _write_config(cfg)
    with Tracker(cfg.run_dir, cfg.tracking, run_name=cfg.name) as tracker:
        tracker.start(cfg.resolved(), run_tags(cfg))
        _stages(cfg, Log(tracker))
        return _report(cfg, tracker)


def _write_config(cfg: RunConfig) -> None:
    """Writes RUN/config.yaml; a report that was made with other settings goes."""
    from jobs.report import REPORT

    path, text = cfg.run_dir / "config.yaml", cfg.to_yaml()
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        (cfg.run_dir / REPORT).unlink(missing_ok=True)
    write_text(path, text)


def _stages(cfg: RunConfig, log: Log) -> None:
    """The story of a run, in order."""
    from jobs.workers import Workers

    if cfg.data.pairs.path is not None:
        return _train_on_given_pairs(cfg, log)
    sampled = cfg.data.pairs.source == "rollouts"
    log("clips", partial(synth.run, cfg))
    with ray_session(cfg.ray), watched_nodes(cfg), Workers(cfg) as workers:
        check_room(cfg, "pipeline")
        log("decoded", partial(streaming.run, cfg, workers) if sampled else partial(decode.run, cfg))
        log.source(cfg)
        log.clips(cfg)
        log.evaluation(cfg, -1, partial(evaluate.run, cfg, -1, workers))
        for k in range(cfg.rounds):
            began_ms = now_ms()
            log.preferences(cfg, k, partial(build_preferences.run, cfg, k, workers))
            if sampled:
                log.round(cfg, k)
            with overlap.sampling_ahead(cfg, k + 1, workers):
                log.training(cfg, k, partial(train.run, cfg, k))
            if cfg.evaluation.every_round or k == cfg.rounds - 1:
                log.evaluation(cfg, k, partial(evaluate.run, cfg, k, workers))
            log.end_round(cfg, k, began_ms)


def _train_on_given_pairs(cfg: RunConfig, log: Log) -> None:
    """The story of a run on preference data that are there already: no engine starts."""
    from jobs.workers import Workers

    with ray_session(cfg.ray), watched_nodes(cfg), Workers(cfg) as workers:
        check_room(cfg, "pipeline")
        log("decoded", partial(decode.run, cfg))
        log.clips(cfg)
        began_ms = now_ms()
        log.preferences(cfg, 0, partial(build_preferences.run, cfg, 0, workers))
        log.training(cfg, 0, partial(train.run, cfg, 0))
        log.adapter(cfg, 0, evaluated=False)
        log.end_round(cfg, 0, began_ms)


def _report(cfg: RunConfig, tracker: Any) -> dict[str, Any]:
    from jobs.report import REPORT, build_report, build_training_report, print_summary, write_report

    sampled = cfg.data.pairs.source == "rollouts"
    given = cfg.data.pairs.path is not None
    build = build_training_report if given else partial(build_report, rounds=cfg.rounds, sampled=sampled)
    report = build(cfg.run_dir, seed=cfg.seed, mlflow_run_id=tracker.run_id, mlflow_tracking_uri=tracker.uri)
    write_report(cfg.run_dir, report)
    for name in ("config.yaml", REPORT):
        tracker.log_artifacts(cfg.run_dir / name, "run")
    tracker.finish()
    tracker.close()
    report["mlflow_run_id"] = tracker.run_id  # a server that answered late gives it at the end
    write_report(cfg.run_dir, report)
    print_summary(report, cfg.run_dir)
    return report


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray pipeline", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
