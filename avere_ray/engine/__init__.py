"""The one door to vLLM: an engine on an audio-visual model, and one on words alone for the judge."""

from avere_ray.engine.omni import Engine, Shown, request_seed
from avere_ray.engine.surroundings import engine_environment, media_limits
from avere_ray.engine.text import TextEngine

__all__ = ["Engine", "Shown", "TextEngine", "engine_environment", "media_limits", "request_seed"]
