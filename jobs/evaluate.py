"""Base or adapter to scores on the held-out questions.

Without a round it scores the newest adapter of the run, or the base when there is none.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.evaluation import BENCHMARKS
from avere_ray.evaluation.benchmark import evaluate
from avere_ray.progress import reused, stage_progress
from avere_ray.records import EvalResult, Rollout
from avere_ray.stages import StageFolder, StageManifest, digest, file_digest, write_json
from jobs.build_preferences import require
from jobs.command import run_command
from jobs.layout import newest_adapter, stage_path
from jobs.room import check_room
from jobs.session import ray_session
from jobs.synth import benchmark_path
from jobs.workers import Workers


def run(cfg: RunConfig, round_: int | None = None, workers: Workers | None = None) -> StageManifest:
    """Scores the adapter of a round (-1: the base), or returns the manifest of the time it was done.

    Raises:
        InputError: there are no held-out questions, or one is about a clip that was dropped.
    """
    if round_ is None or workers is None:
        with ray_session(cfg.ray), Workers(cfg) as own:
            check_room(cfg, "evaluate")
            return run(cfg, newest_adapter(cfg) if round_ is None else round_, own)
    decoded = require(cfg, "decoded")
    adapter = require(cfg, "adapters", round_) if round_ >= 0 else None
    path = check_benchmark(cfg)
    folder = StageFolder(
        stage_path(cfg, "evals", round_),
        stage="evals",
        config=cfg.to_yaml(),
        key=digest(
            "evals",
            file_digest(path),
            decoded.output_digest,
            model_digest(cfg.model.path),
            cfg.model.dtype,
            adapter.output_digest if adapter else "",
            cfg.evaluation.benchmarks,
            cfg.evaluation.max_tokens,
        ),
    )
    if (manifest := folder.finished()) is not None:
        reused("evaluation of the base" if round_ < 0 else f"evaluation of round {round_}", manifest.used, "questions")
        return manifest
    folder.begin()
    worst = workers.use_adapter(stage_path(cfg, "adapters", round_) if round_ >= 0 else None, round_ + 1)
    return _score(cfg, round_, workers, folder, worst)


def _score(cfg: RunConfig, round_: int, workers: Workers, folder: StageFolder, worst: float) -> StageManifest:
    results: list[EvalResult] = []
    predictions: list[Rollout] = []
    drops = []
    for name in cfg.evaluation.benchmarks:
        benchmark = BENCHMARKS[name]
        queries, left_out = benchmark.load(benchmark_path(cfg), workers.clips)
        drops += left_out
        title = f"evaluate {name} ({'base' if round_ < 0 else f'round {round_}'})"
        with stage_progress(title, "questions") as progress:
            generate = partial(workers.pool.__call__, progress=progress)
            result, answers = evaluate(
                benchmark,
                queries,
                generate,
                max_tokens=cfg.evaluation.max_tokens,
                adapter_version=round_ + 1,
                round_=round_,
            )
        scores = benchmark.details(queries, {answer.query_id: answer.text for answer in answers})
        write_json(folder.path / f"{name}_scores.json", scores.to_json())
        results.append(result)
        predictions += answers
    folder.write("results", EvalResult, results)
    folder.write("predictions", Rollout, predictions)
    metrics = {key: value for result in results for key, value in result.metrics.items()}
    used = sum(r.n for r in results)
    return folder.finish(
        inputs=used + len(drops), used=used, drops=drops, summary={"metrics": metrics, "parity_max_abs_diff": worst}
    )


def check_benchmark(cfg: RunConfig) -> Path:
    """Path of the held-out questions.

    Raises:
        InputError: there is no such file.
    """
    path = benchmark_path(cfg)
    if not path.is_file():
        raise InputError(
            f"there are no held-out questions at {path}. Set data.benchmark to an EmoReAlM-format JSON "
            "file about your clips."
        )
    return path


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray evaluate", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
