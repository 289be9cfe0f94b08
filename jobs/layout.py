"""Where each stage of a run keeps its folder. The tree of a run is the picture of its flow.

RUN/
  config.yaml                the resolved configuration
  clips/                     synthetic clips, when the config names none
  source/                    the clips of a corpus that is read as its authors ship it, and what was left out
  decoded/                   frames and waveforms
  rollouts/round=K/          queries and sampled responses; while they are sampled, in unfinished/
  verdicts/round=K/          what the judge said of each
  pairs/round=K/             preference pairs
  reference/round=K/         frozen-reference log-probs
  checkpoints/round=K/       what training of round K goes on from
  adapters/round=K/          the adapter trained in round K
  evals/before, round=K/     scores and predictions
  metrics/                   everything logged, until MLflow has it
  report.json
"""

from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.stages import StageManifest, read_manifest


def stage_path(cfg: RunConfig, stage: str, round_: int | None = None) -> Path:
    """Folder of a stage, absolute; `round_` -1 is the evaluation before training."""
    path = cfg.run_dir.absolute() / stage
    if round_ is None:
        return path
    return path / ("before" if round_ < 0 else f"round={round_}")


def feature_path(cfg: RunConfig) -> Path:
    """Folder of tower outputs, kept over runs; absolute."""
    return _cache(cfg) / "features"


def logp_path(cfg: RunConfig) -> Path:
    """Folder of reference figures, kept over runs; absolute."""
    return _cache(cfg) / "logps"


def verdict_path(cfg: RunConfig) -> Path:
    """Folder of what judging models replied, kept over runs; absolute."""
    return _cache(cfg) / "verdicts"


def _cache(cfg: RunConfig) -> Path:
    return (cfg.cache.folder or cfg.run_dir.absolute().parent / "cache").absolute()


def finished(cfg: RunConfig, stage: str, round_: int | None = None) -> StageManifest | None:
    """Manifest of a finished stage, whatever its key."""
    return read_manifest(stage_path(cfg, stage, round_))


def require(cfg: RunConfig, stage: str, round_: int | None = None) -> StageManifest:
    """Manifest of a stage that must have been run before.

    Raises:
        StageError: it has not; names the folder and the verb that makes it.
    """
    manifest = finished(cfg, stage, round_)
    if manifest is None:
        verb = {"decoded": "decode", "adapters": "train"}.get(stage, "build-preferences")
        raise StageError(
            f"{stage_path(cfg, stage, round_)} is not finished; run `avere-ray {verb}` first, or "
            "`avere-ray pipeline` for everything"
        )
    return manifest


def next_round(cfg: RunConfig) -> int:
    """First round that has no adapter yet; the last round when all have."""
    for round_ in range(cfg.rounds):
        if finished(cfg, "adapters", round_) is None:
            return round_
    return cfg.rounds - 1


def newest_adapter(cfg: RunConfig) -> int:
    """Last round, from the first on without a gap, that has an adapter; -1 when none has."""
    for round_ in range(cfg.rounds):
        if finished(cfg, "adapters", round_) is None:
            return round_ - 1
    return cfg.rounds - 1
