"""One strict config tree: YAML file, then dotted overrides from the command line, which win.

Unknown keys are refused, every field is documented beneath its name, rules between fields are spelled as sentences.
Note on YAML: write floats with a dot (5.0e-7, not 5e-7) and quote "yes" and "no".
"""

from avere_ray.config.data import DataConfig, DecodeConfig, PairsConfig, RemoteConfig, SourceConfig, WorldConfig
from avere_ray.config.endpoint import EndpointConfig
from avere_ray.config.loading import help_text, load_config, with_equals
from avere_ray.config.loss import LossConfig
from avere_ray.config.run import RunConfig
from avere_ray.config.sampling import JudgeConfig, ModelConfig, ParityConfig, PreferenceConfig, RolloutConfig
from avere_ray.config.serve import ServeConfig
from avere_ray.config.study import StudyConfig
from avere_ray.config.surroundings import EvaluationConfig, PlacementConfig, RayConfig, TrackingConfig
from avere_ray.config.train import CacheConfig, TrainConfig

__all__ = [
    "CacheConfig",
    "DataConfig",
    "DecodeConfig",
    "EndpointConfig",
    "EvaluationConfig",
    "JudgeConfig",
    "LossConfig",
    "ModelConfig",
    "PairsConfig",
    "ParityConfig",
    "PlacementConfig",
    "PreferenceConfig",
    "RayConfig",
    "RemoteConfig",
    "RolloutConfig",
    "RunConfig",
    "ServeConfig",
    "SourceConfig",
    "StudyConfig",
    "TrackingConfig",
    "TrainConfig",
    "WorldConfig",
    "help_text",
    "load_config",
    "with_equals",
]
