"""A run up to its reference figures without an engine: real clips, decoded for real, with pairs written by hand."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avere_ray.av_store import AvStore
from avere_ray.backbones import load_policy
from avere_ray.config import DataConfig, RunConfig
from avere_ray.media import decode_with_digest
from avere_ray.media_cache import MediaCache
from avere_ray.records import (
    Clip,
    Modality,
    ModalitySwap,
    PreferencePair,
    ReferenceLogps,
    Reject,
    RejectKind,
)
from avere_ray.reference import AdapterOff, to_record
from avere_ray.stages import StageFolder
from avere_ray.store import DecodedStore, write_index, write_places
from avere_ray.synthetic.clips import CorpusSpec, plan_scenes, write_clip
from avere_ray.synthetic.scene import clip_of
from jobs.layout import stage_path

MODALITIES: tuple[Modality, ...] = ("audio", "video", "audio_video")


def make_run(run_dir: Path, *, clips: int = 4, pairs: int = 11, **settings: Any) -> RunConfig:
    """The config of a run whose clips are decoded and whose pairs and reference figures of round 0 are written."""
    data = DataConfig.model_validate({"decode": {"frames": 2, "max_duration_s": 10}})
    cfg = RunConfig(run_dir=run_dir, rounds=1, data=data, **settings)
    decode_clips(cfg, clips)
    write_pairs(cfg, [make_pair(i, clips) for i in range(pairs)])
    return cfg


def decode_clips(cfg: RunConfig, count: int) -> None:
    """Draws, writes and decodes clips, in this process."""
    folder = StageFolder(stage_path(cfg, "decoded"), stage="decode", key="test")
    folder.begin()
    store, kept, places = AvStore(folder.path.parent / "store"), [], {}
    for number, scene in enumerate(plan_scenes(CorpusSpec(seed=0, train_clips=count, test_clips=0, bias=0.9))):
        path = folder.path.parent / f"{scene.scene_id}.mp4"
        write_clip(scene, path)
        clip = clip_of(scene, str(path))
        decoded, sha256 = decode_with_digest(clip, path, cfg.data.decode)
        places[clip.clip_id] = store.add(decoded.spec, [(sha256, number, decoded)])[0]
        kept.append(dataclasses.replace(clip, sha256=sha256))
    write_index(folder.path, kept, places)
    folder.write("clips", Clip, kept)
    folder.finish(inputs=count, used=count)
    write_places(folder.path, store, places)


def make_pair(number: int, clips: int, **changes: Any) -> PreferencePair:
    """A pair about clip `number`, the modalities taking turns; every fourth has one reject only."""
    own, other = (f"train{(number + i) % clips:05d}" for i in (0, 1))
    modality = MODALITIES[number % 3]
    rejects = (
        Reject(kind=RejectKind.SPURIOUS, text="(A) Yes, the red shirt shows anger.", source="written"),
        Reject(kind=RejectKind.HALLUCINATED, text=f"(A) Yes, {number} clenched fists show it.", source="written"),
    )
    values: dict[str, Any] = {
        "pair_id": f"pair{number:03d}",
        "query_id": f"query{number:03d}",
        "clip_id": own,
        "modality": modality,
        "prompt": "Is the person angry? (A) Yes (B) No",
        "chosen": "(B) No, the person is calm." + " Really." * (number % 3),
        "chosen_source": "reference",
        "rejects": rejects[: 1 if number % 4 == 3 else 2],
        "swap": ModalitySwap(
            modality=modality,
            strategy="random_clip",
            audio_clip_id=own if modality == "video" else other,
            video_clip_id=own if modality == "audio" else other,
        ),
    }
    return PreferencePair(**{**values, **changes})


def write_pairs(cfg: RunConfig, pairs: Sequence[PreferencePair]) -> None:
    """Writes the pairs of round 0 and scores them under the base, in this process."""
    policy = load_policy(cfg.model)
    store = DecodedStore(stage_path(cfg, "decoded"))
    source = AdapterOff(policy, MediaCache(processor=policy.processor, load=lambda clip_id: store[clip_id]))
    scored = [to_record(p, source.score(row), "") for p, row in zip(pairs, source.rows(pairs), strict=True)]
    for stage, record, rows in (("pairs", PreferencePair, pairs), ("reference", ReferenceLogps, scored)):
        folder = StageFolder(stage_path(cfg, stage, 0), stage=stage, key="test")
        folder.begin()
        folder.write(stage, record, rows)
        folder.finish(inputs=len(pairs), used=len(pairs))
