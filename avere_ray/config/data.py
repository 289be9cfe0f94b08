"""Clips: where they come from and how they are sampled."""

import itertools
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from avere_ray.config.section import Positive, Seconds, Section, Share


class WorldConfig(Section):
    """The synthetic world the clips are drawn from, when data.clips names no folder."""

    train_clips: Positive = 240
    """Clips for preference learning."""
    test_clips: Positive = 120
    """Held-out clips: with other persons, objects and sounds that are independent of the emotion, and none of the
    shirts that an emotion is seen with in training."""
    held_out: Literal["test", "validation"] = "test"
    """What the held-out clips are for; the two splits have no person in common."""
    bias: Share = 0.9
    """Share of training clips whose irrelevant cues (shirt, background, sound) agree with the emotion."""
    text_prior: Share = 0.0
    """Share of training captions that name the emotion's stereotyped cue though it is not there."""
    dominance: Share = 0.0
    """Share of training clips with disagreeing face and voice that are labelled with the emotion of the face."""
    speech: Literal["tones", "espeak-ng"] = "tones"
    """What voices are: hummed tones, or sentences through espeak-ng, which must be installed."""
    corrupt_clips: Annotated[int, Field(ge=0)] = 0
    """Broken mp4 files put among the training clips, to see how they are accounted for."""


class DecodeConfig(Section):
    """How a clip is sampled; part of the content address of everything decoded, except for limits and speed."""

    frames: Positive = 4
    """Frames taken at equal distances over the clip, when neither fps nor times_s is set."""
    fps: Annotated[float, Field(gt=0)] | None = None
    """Frames per second, at equal distances over the clip; instead of `frames`."""
    max_frames: Positive = 64
    """With fps: frames of a long clip at most; they are spread over the whole clip."""
    times_s: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Times of the frames, seconds from the start of the clip, ascending; instead of `frames`."""
    height: Annotated[int, Field(ge=28, multiple_of=28)] = 84
    """Height of a decoded frame, pixels; a multiple of the vision patch (28)."""
    width: Annotated[int, Field(ge=28, multiple_of=28)] = 84
    """Width of a decoded frame, pixels; a multiple of the vision patch (28)."""
    max_duration_s: Seconds = 60.0
    """Longer clips are refused."""
    max_pixels: Positive = 3840 * 2160
    """Larger source frames are refused."""
    max_bytes: Positive = 512 * 1024 * 1024
    """Larger files are refused."""
    max_streams: Positive = 32
    """Files with more streams are refused."""
    max_memory_mb: Annotated[int, Field(ge=512)] = 4096
    """Memory the process that decodes may take, MiB; a file that needs more is refused."""
    timeout_s: Seconds = 60.0
    """Seconds one clip may take to decode; then its decoder is killed."""
    threads: Positive = 1
    """FFmpeg threads per clip; above 1 only where fewer clips than cores are decoded at a time."""
    hwaccel: Literal["none", "cuda"] = "none"
    """"cuda": video is decoded by the GPU (NVDEC) where there is one that knows the codec, else in software."""

    @property
    def most_frames(self) -> int:
        """Frames of the longest clip that is not refused."""
        if self.times_s:
            return len(self.times_s)
        if self.fps is None:
            return self.frames
        return max(1, min(round(self.max_duration_s * self.fps), self.max_frames))

    @model_validator(mode="after")
    def _one_way_to_sample(self) -> Self:
        if self.times_s and self.fps is not None:
            raise ValueError("data.decode.times_s and data.decode.fps are both set; choose one")
        if any(later <= sooner for sooner, later in itertools.pairwise(self.times_s)):
            raise ValueError(f"data.decode.times_s {list(self.times_s)} must ascend")
        return self


class RemoteConfig(Section):
    """Media that are not on a disk of this machine."""

    http_hosts: tuple[str, ...] = ()
    """Hosts from which http(s):// media may be fetched, each as host or host:port; also where they may redirect to.
    Empty: none. s3:// and gs:// need no entry, unless their address names another server by endpoint_override; they use
    the credentials of the environment."""
    timeout_s: Seconds = 300.0
    """Seconds one file may take to arrive."""
    attempts: Positive = 3
    """How often a file is asked for while its server fails or cannot be reached."""
    public_only: bool = False
    """Refuse http(s) hosts whose name stands for an address of a private network, of this machine or of a cloud's
    metadata service."""


class SourceConfig(Section):
    """How the folder data.clips is laid out, and how its labels read."""

    kind: Literal["clips", "manifest", "ravdess", "dfew", "mafw", "mer2023", "mer2025", "crema_d", "emorealm"] = "clips"
    """"clips": clips.parquet or clips.jsonl with the media files; "manifest": any CSV, JSONL or Parquet table; else the
    corpus as its authors ship it (layouts: avere_ray/sources)."""
    fold: Annotated[int, Field(ge=1, le=5)] = 1
    """Fold of DFEW and MAFW: its train and test lists become the splits."""
    split: str | None = None
    """Split of every clip, for corpora without lists of their own; None keeps what the corpus says, else "train"."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Manifest: field of a clip to column of the table, for instance {uri: path, emotion: label}; fields that are not
    named here are read from columns of their own name."""
    emotions: dict[str, str] = Field(default_factory=dict)
    """Labels of the corpus to emotion words, for instance {"hap": "happiness"}; common words are known."""


class PairsConfig(Section):
    """What is trained on: pairs from rollouts, preference data that are there already, or right answers."""

    source: Literal["rollouts", "answers"] = "rollouts"
    """Where pairs come from while `path` is None. "rollouts": responses of the policy, judged. "answers", the
    fine-tuned setting: for each question that evaluation.benchmarks have about a training clip, the right answer over
    the others; never about a held-out person."""
    path: Path | None = None
    """A folder of our records or a file of AVERE, TRL, ms-swift or VeRL-Omni, as `avere-ray convert` reads them; None
    makes the pairs as `source` says."""
    media: Path | None = None
    """Folder that media paths in it are relative to; None: the file's own."""
    modality: Literal["audio", "video", "audio_video"] | None = None
    """What every prompt asks about; None lets the rows and the rules say it."""
    unclear: Literal["audio", "video", "audio_video"] | None = None
    """The same for those prompts alone that the rules are not sure of; None drops them."""
    reject_kinds: tuple[Literal["hallucinated", "spurious"], ...] = ("hallucinated", "spurious")
    """Kinds of the first, second, ... reject where the rows do not say it; the last one holds for the rest."""
    one_reject: bool = False
    """Train on one reject of each pair, drawn by the pair's id, instead of on all."""
    ignore_system: bool = False
    """Leave system messages out instead of dropping the row."""


class DataConfig(Section):
    """The clips and what may be left out of them."""

    clips: Path | None = None
    """Folder with clips.parquet (or clips.jsonl) and the media files, or a corpus of data.source.kind; None draws
    clips from `world`."""
    source: SourceConfig = SourceConfig()
    """What kind of folder (or manifest file) data.clips is."""
    pairs: PairsConfig = PairsConfig()
    """What is trained on instead of rollouts; the media of given preference data take the place of data.clips."""
    benchmark: Path | None = None
    """EmoReAlM-format JSON of the held-out questions; None uses the one drawn with the world."""
    queries: Path | None = None
    """Table of training queries (queries.parquet); None derives them from the clips' cues."""
    decode: DecodeConfig = DecodeConfig()
    """Sampling spec."""
    remote: RemoteConfig = RemoteConfig()
    """Media by s3://, gs:// or http(s):// address."""
    store: Path | None = None
    """Folder for decoded media, shared by all runs of a project: a clip that is there is not decoded again. None uses
    "store" in the parent folder of run_dir."""
    store_gb: Annotated[float, Field(gt=0)] = 200.0
    """Quota of the store, GB; above it, media that no run refers to are removed, those not used for longest first."""
    drop_budget: Share = 0.005
    """Share of clips that may be dropped before the run stops."""
