"""What the doctor asks in a process of its own, since an engine or a cluster may hang or crash."""

from typing import TYPE_CHECKING

from avere_ray.config import RayConfig, RunConfig
from avere_ray.placement import NodeGroup

if TYPE_CHECKING:
    from avere_ray.records import DecodedClip

PROMPT = "What does the person feel, and what in the video and the voice tells you so?"
RESPONSE = "The person feels angry."


def token_ids(cfg: RunConfig) -> tuple[list[int], list[int]]:
    """Prompt token ids with a made-up clip, as the engine and as the learner see them; starts an engine.

    Raises:
        ModelError: the engine cannot start on the model folder.
    """
    from avere_ray.engine import Engine

    clip = _sample_clip(cfg)
    engine = Engine(cfg.model, cfg.rollout, lora_rank=cfg.train.lora_rank, decode=cfg.data.decode)
    seen = engine.response_logps(PROMPT, clip, engine.processor.response_ids(RESPONSE)).token_ids
    media = ("sample", engine.processor.features(clip))
    sample = engine.processor.sample(PROMPT, RESPONSE, video=media, audio=media)
    return seen, sample.token_ids[: sample.branch.response_start].tolist()


def cluster_groups(cfg: RayConfig) -> list[NodeGroup]:
    """The nodes of the configured cluster.

    Raises:
        ClusterError: it does not answer, or runs another version.
    """
    from jobs.room import live_groups
    from jobs.session import ray_session

    with ray_session(cfg):
        return live_groups()


def _sample_clip(cfg: RunConfig) -> "DecodedClip":
    import numpy as np

    from avere_ray.records import DecodedClip

    spec, seconds = cfg.data.decode, 2.0
    times = np.arange(spec.frames, dtype=np.float32) * (seconds / spec.frames)
    noise = np.random.default_rng(0).integers(0, 256, (spec.frames, spec.height, spec.width, 3), dtype=np.uint8)
    tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(int(16_000 * seconds)) / 16_000)
    return DecodedClip(
        clip_id="sample",
        spec="",
        frames=noise,
        frame_times_s=times,
        waveform=tone.astype(np.float32),
        duration_s=seconds,
    )
