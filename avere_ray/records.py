"""One frozen record per edge of the flow.

    Clip -> DecodedClip -> (Query) Rollout -> Verdict -> PreferencePair -> ReferenceLogps
         -> AdapterManifest -> EvalResult; and for every input that is left out on the way: Drop

Records are plain data: no methods that compute, no paths resolved, no tensors on devices. Arrays are numpy.
`avere_ray.arrow` stores them; the schema follows from the field annotations.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np

Modality = Literal["audio", "video", "audio_video"]
CueModality = Literal["audio", "video"]


class VerdictLabel(StrEnum):
    """What the judge says of one response."""

    FAITHFUL = "faithful"
    SPURIOUS_ASSOCIATION = "spurious_association"
    HALLUCINATION = "hallucination"
    WRONG_EMOTION = "wrong_emotion"
    OFF_TOPIC = "off_topic"
    UNPARSEABLE = "unparseable"


class RejectKind(StrEnum):
    """Why a rejected response is worse; the paper's y^vr and y^er."""

    SPURIOUS = "spurious"
    HALLUCINATED = "hallucinated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """Something a person could see or hear in a clip, and what it says about emotion.

    A cue that is present but has no `emotions` is irrelevant: citing it is a spurious association.
    A cue that is not present but fits an emotion is absent: citing it is a hallucination.
    """

    name: str
    """Canonical key, for instance "clenched_fists"; the same in every clip of a corpus."""
    modality: CueModality
    """Where the cue is perceived: "audio" or "video"."""
    text: str
    """Phrase that names it in a sentence, for instance "clenched fists"."""
    present: bool
    """Whether it is in this clip."""
    emotions: tuple[str, ...] = ()
    """Emotions it is evidence for; empty when it says nothing about emotion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One audio-visual clip as annotated, before decoding."""

    clip_id: str
    """Unique in its corpus and stable over runs."""
    uri: str
    """Local path of the media file; relative paths are relative to the folder of the clip table."""
    start_s: float = 0.0
    """Where the clip begins in the file, seconds from the file's first frame."""
    end_s: float | None = None
    """Where it ends, exclusive; None: with the file."""
    sha256: str = ""
    """Digest of the media file, hex; empty when it has not been read yet."""
    split: str = "train"
    """Which part of the corpus: "train", "test", ..."""
    identity: str = ""
    """The person shown, so that identities can be kept apart; empty when unknown."""
    emotion: str = ""
    """The emotion of the clip as a whole; empty when unknown or when face and voice disagree."""
    face_emotion: str = ""
    """What the face alone shows; empty when unknown."""
    voice_emotion: str = ""
    """What the voice alone tells; empty when unknown."""
    cues: tuple[Cue, ...] = ()
    """Cue inventory, present and plausibly absent ones; empty when not annotated."""
    source: str = ""
    """Corpus it comes from, for instance "ravdess"; empty when unknown."""
    source_video: str = ""
    """The longer video it was cut from, so that two cuts of one scene are never swap partners; empty when unknown."""
    audio_uri: str = ""
    """Separate audio file, like `uri`; empty when the sound is in the media file itself."""
    caption: str = ""
    """Description of what is seen and heard; empty when not annotated."""
    video_caption: str = ""
    """Description of what is seen alone; empty when not annotated."""
    audio_caption: str = ""
    """Description of what is heard alone; empty when not annotated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """Sampled frames and waveform of one clip, on one time axis that starts at 0 s."""

    clip_id: str
    """The Clip it was decoded from."""
    spec: str
    """Digest of the sampling spec and decoder version that made it."""
    frames: np.ndarray
    """uint8 [T, H, W, 3], RGB."""
    frame_times_s: np.ndarray
    """float32 [T], seconds from the start of the clip."""
    waveform: np.ndarray
    """float32 [S], mono, 16 kHz, in [-1, 1]."""
    duration_s: float
    """Length of the clip in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One prompt about one clip."""

    query_id: str
    """Unique in the run; stable over rounds."""
    clip_id: str
    """The clip it is asked about."""
    modality: Modality
    """Which modality the prompt asks about; decides what a modality swap replaces."""
    task: str
    """Template or benchmark task it comes from, for instance "reasoning_stress_video"."""
    prompt: str
    """The words of the question, with its choices if it has any; media are added by the backbone."""
    choices: tuple[str, ...] = ()
    """Answer choices as shown, "(A) ..." first; empty for open questions."""
    answer: str = ""
    """Letter of the right choice, "A" to "H"; empty for open questions."""
    subtype: str = ""
    """For stress questions: "spurious", "hallucination" or "no_hallucination"; else empty."""
    about_cue: str = ""
    """Name of the cue the question is about, if it is about one; a key of the clip's inventory."""
    reference: str = ""
    """A faithful answer in words; empty when none is known."""
    modality_confidence: float = 1.0
    """How sure `modality` is: 1 when a template or the data says it, less when rules read it from the words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One response sampled from the policy."""

    rollout_id: str
    """`<query_id>#<index>` within a round."""
    query_id: str
    """The prompt it answers."""
    clip_id: str
    """The clip it was shown."""
    index: int
    """0 to n-1 among the samples of its query."""
    text: str
    """The response, special tokens removed."""
    token_ids: tuple[int, ...]
    """Response tokens as sampled, end token included if it was produced."""
    finish_reason: str
    """"stop" when the end token was produced, "length" when the limit was reached."""
    adapter_version: int
    """Version of the adapter it was sampled with; 0 is the base."""
    seed: int
    """Sampling seed of its query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CitedCue:
    """One cue that a response relies on, held against the clip."""

    name: str
    """Canonical cue key, or "" when the words match no known cue."""
    text: str
    """The words of the response that cite it."""
    modality: str
    """"audio", "video", or "" when unknown."""
    present: bool
    """Whether the clip has it."""
    relevant: bool
    """Whether it is evidence for the emotion that the clip conveys."""
    affirmed: bool
    """False when the response says that the cue is absent or does not matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A judge's decision about one rollout, with its evidence."""

    rollout_id: str
    """The response judged."""
    query_id: str
    """Its prompt."""
    label: VerdictLabel
    """What kind of response it is."""
    cited: tuple[CitedCue, ...]
    """The cues the response relies on, in order."""
    emotion: str
    """The emotion the response claims; empty when it names none."""
    confidence: float
    """0 to 1."""
    evidence: str
    """One sentence that a person can check against the clip."""
    judge: str
    """Name and version of the judge, for instance "rules/1"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """One rejected response of a pair."""

    kind: RejectKind
    """Why it is worse."""
    text: str
    """The response."""
    source: str
    """"rollout" when sampled from the policy, "written" when made by editing the chosen response, "data" when read from
    a data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalitySwap:
    """The mismatched input of a pair: which media to show instead of the clip's own."""

    modality: Modality
    """What was replaced."""
    strategy: str
    """How the partner was chosen, for instance "other_emotion"."""
    audio_clip_id: str
    """Clip whose waveform is shown; the pair's own clip when audio is not swapped."""
    video_clip_id: str
    """Clip whose frames are shown; the pair's own clip when video is not swapped."""
    seed: int = 0
    """Seed of a medium that is made from the clip's own, for instance noise; 0 when it comes from a partner clip.
    A made medium has an id of its own instead of a clip's, so that nothing takes it for the clip's medium."""
    level: float = 0.0
    """Strength of strategy "diffusion": share of the noise schedule, above 0 to 1; 0 for the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """One training example: a prompt, the chosen response, one to K rejects and a mismatched input."""

    pair_id: str
    """Unique in the run."""
    query_id: str
    """The prompt's query."""
    clip_id: str
    """The clip it is about."""
    modality: Modality
    """Which modality the prompt asks about."""
    prompt: str
    """The words of the question."""
    chosen: str
    """The preferred response."""
    chosen_source: str
    """"rollout", "reference", or "data" when read from a data set."""
    rejects: tuple[Reject, ...]
    """One or more rejected responses."""
    swap: ModalitySwap | None
    """The mismatched input; None when the pair has no modality preference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceLogps:
    """Summed response log-probs (nats) of one pair under the frozen reference model.

    Order of every list: chosen, then the rejects in the pair's order.
    """

    pair_id: str
    """The pair scored."""
    key: str
    """Digest of everything that changes the figures: texts, media, sampling spec, weights, dtype."""
    responses: tuple[float, ...]
    """log pi_ref(y | clip, prompt), [1 + K]."""
    swapped: float
    """log pi_ref(chosen | mismatched input, prompt); NaN when the pair has no swap."""
    irrelevant: float
    """log pi_ref(chosen | input with only the other modality replaced, prompt); NaN when there is none."""
    text_prior: tuple[float, ...]
    """log pi_ref(y | prompt alone, no media), [1 + K]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterManifest:
    """A trained adapter folder: what it is for and where it comes from. Written last."""

    version: int
    """1 for the first adapter of a run, one more each round; 0 means the base without adapter."""
    path: str
    """Folder of the weights, relative to the manifest: "." for an adapter in peft format, "model" for a whole model."""
    base_digest: str
    """Digest of the base weights it was trained on; loading refuses another base."""
    backbone: str
    """Model family, for instance "qwen2_5_omni"."""
    round: int
    """Round that trained it."""
    step: int
    """Optimizer steps in that round."""
    rank: int
    """LoRA rank r."""
    alpha: float
    """LoRA alpha; the update is scaled by alpha / r."""
    data_digest: str
    """Digest of the pairs it was trained on."""
    decode_spec: str
    """Digest of the sampling spec of its clips."""
    weights_sha256: str
    """Digest of adapter_model.safetensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """Scores of one model on one benchmark."""

    benchmark: str
    """Name in `avere_ray.evaluation.BENCHMARKS`."""
    adapter_version: int
    """Adapter evaluated; 0 is the base."""
    round: int
    """-1 before training, else the round just trained."""
    n: int
    """Questions scored."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metric name to value; accuracies in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """One input that a stage left out, and why."""

    sample_id: str
    """Id of the input in its stage: clip, query or pair."""
    stage: str
    """Stage that left it out."""
    reason: str
    """Short code, for instance "no_audio_stream"."""
    message: str
    """Sentence for a person."""
    bytes: int = 0
    """Size of the input where that is known."""


RECORDS: tuple[type, ...] = (
    Clip,
    DecodedClip,
    Query,
    Rollout,
    Verdict,
    PreferencePair,
    ReferenceLogps,
    AdapterManifest,
    EvalResult,
    Drop,
)
