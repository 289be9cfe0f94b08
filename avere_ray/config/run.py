"""The whole config of a run."""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from avere_ray.config.data import DataConfig, WorldConfig
from avere_ray.config.loss import LossConfig
from avere_ray.config.rules import check_rules, set_by_placement
from avere_ray.config.sampling import JudgeConfig, ModelConfig, ParityConfig, PreferenceConfig, RolloutConfig
from avere_ray.config.section import Positive, StrictNumbers
from avere_ray.config.serve import ServeConfig
from avere_ray.config.study import StudyConfig
from avere_ray.config.surroundings import EvaluationConfig, PlacementConfig, RayConfig, TrackingConfig
from avere_ray.config.train import CacheConfig, TrainConfig


class RunConfig(StrictNumbers, BaseSettings):
    """A whole run: clips, base model, rounds of preference learning, evaluation."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    name: str = "run"
    """Name shown in MLflow."""
    run_dir: Path = Path("runs/run")
    """Folder for everything the run writes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    rounds: Positive = 2
    """Rounds of rollouts, judging, pairing and training."""
    ray: RayConfig = RayConfig()
    """Where Ray runs."""
    placement: PlacementConfig = PlacementConfig()
    """Stages on labelled nodes."""
    world: WorldConfig = WorldConfig()
    """Synthetic clips, used when data.clips is not set."""
    data: DataConfig = DataConfig()
    """Clips and drop budget."""
    model: ModelConfig = ModelConfig()
    """Base model."""
    rollout: RolloutConfig = RolloutConfig()
    """Sampling."""
    judge: JudgeConfig = JudgeConfig()
    """Judging."""
    preference: PreferenceConfig = PreferenceConfig()
    """Pairing."""
    loss: LossConfig = LossConfig()
    """Objective."""
    train: TrainConfig = TrainConfig()
    """Learner."""
    cache: CacheConfig = CacheConfig()
    """Kept over runs."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Scoring."""
    parity: ParityConfig = ParityConfig()
    """Engine-learner gate."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    study: StudyConfig = StudyConfig()
    """Comparison of methods."""
    serve: ServeConfig = ServeConfig()
    """Answering over HTTP."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The YAML file and the command line only: a variable such as NAME or SEED in the shell changes nothing."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _placement_sets_the_stages(cls, values: Any) -> Any:
        return set_by_placement(values) if isinstance(values, dict) else values

    @field_validator("name")
    @classmethod
    def _name_is_a_word(cls, value: str) -> str:
        if not value or not all(c.isalnum() or c in "._-" for c in value):
            raise ValueError(f"name {value!r} may hold letters, digits, '.', '_' and '-' only")
        return value

    @model_validator(mode="after")
    def _rules_between_fields(self) -> Self:
        check_rules(self)
        return self

    @property
    def gpus(self) -> float:
        """GPUs that are reserved at the same time: by engines, scorer and learner workers, or while the engines are as
        many as they get."""
        rollout, train = self.rollout, self.train
        workers = train.workers * train.gpus_per_worker if train.use_gpu else 0.0
        more = (rollout.most_engines - rollout.engines) * rollout.num_gpus
        return rollout.engines * rollout.num_gpus + rollout.scorer_gpus + max(workers, more)

    def resolved(self) -> dict[str, Any]:
        """The whole tree as plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The whole tree as YAML."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)
