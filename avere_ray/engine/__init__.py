"""The one door to vLLM: engines on an audio-visual model, asked in batches or live; one on words for the judge."""

from avere_ray.engine.batches import Asking
from avere_ray.engine.live import LiveEngine, NoRoom, Refused
from avere_ray.engine.live_face import LiveFace
from avere_ray.engine.omni import Engine, EngineFace, Shown, request_seed
from avere_ray.engine.progress import Piece, Progress, TokenLogp, Wanted, sampling_params
from avere_ray.engine.surroundings import engine_environment, engine_threads, media_limits
from avere_ray.engine.text import TextEngine

__all__ = [
    "Asking",
    "Engine",
    "EngineFace",
    "LiveEngine",
    "LiveFace",
    "NoRoom",
    "Piece",
    "Progress",
    "Refused",
    "Shown",
    "TextEngine",
    "TokenLogp",
    "Wanted",
    "engine_environment",
    "engine_threads",
    "media_limits",
    "request_seed",
    "sampling_params",
]
