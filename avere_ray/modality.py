"""Modality swaps: the input in which only the modality a prompt asks about is replaced.

The paper's prompt-based modality preference (section 3.3) compares the chosen response under the clip and under this
mismatched input. For a question about both, frames and waveform come from one other clip, so that they still match
each other. Everything here is pure: a choice depends on the corpus, the query and the seed, never on what was asked
before, and a record says everything that is needed to make the input again.

Strategies: "other_emotion" and "random_clip" take a partner clip; the rest make a medium from the clip's own (see
`corruptions`). A partner is never the clip itself, never of its identity, source video or split, and never annotated
with the emotion that the clip shows in the modality asked about; for a question about both, with neither that of its
face, of its voice, nor of the whole.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from avere_ray.corruptions import CORRUPTIONS, corrupt_frames, corrupt_waveform
from avere_ray.emotions import canonical_emotion
from avere_ray.errors import InputError
from avere_ray.prompts import shown_emotion
from avere_ray.records import Clip, DecodedClip, Modality, ModalitySwap, Query
from avere_ray.stages import digest

PARTNER_STRATEGIES = ("other_emotion", "random_clip")
STRATEGIES = (*PARTNER_STRATEGIES, *CORRUPTIONS)
DEFAULT_LEVEL = 0.5
"""Noise level of "diffusion", as share of its schedule."""
SHORTLIST = 8
"""Partners drawn by the seed, of which the nearest in duration is taken."""
FIRST_LOOK = 64
"""Clips looked at before the whole corpus is."""


def apply_swap(
    clip: DecodedClip, swap: ModalitySwap, audio: DecodedClip | None, video: DecodedClip | None
) -> DecodedClip:
    """The clip with its swapped modality replaced; its time axis, frame count and number of samples stay.

    A partner's waveform is cut or padded with silence at the end; a partner with another number of frames is sampled
    at equal distances. The result has an id of its own, since it is other content than the clip's.

    Args:
        clip: the pair's own clip.
        swap: which modality comes from which clip, or how it is made.
        audio: the clip `swap.audio_clip_id`; may be None when audio is not swapped.
        video: the clip `swap.video_clip_id`; may be None when video is not swapped.

    Raises:
        InputError: a partner is missing, is another clip than the swap names, or has frames of another size.
    """
    changes: dict[str, object] = {}
    if is_made(swap):
        changes = _made_media(clip, swap)
    else:
        if swap.audio_clip_id != clip.clip_id:
            partner = _partner(audio, swap.audio_clip_id, "audio", clip)
            changes["waveform"] = _fit_waveform(partner.waveform, len(clip.waveform))
        if swap.video_clip_id != clip.clip_id:
            partner = _partner(video, swap.video_clip_id, "video", clip)
            changes["frames"] = _fit_frames(partner, clip)
    if not changes:
        return clip
    name = f"{clip.clip_id}|audio={swap.audio_clip_id}|video={swap.video_clip_id}"
    return replace(clip, clip_id=name, **changes)  # type: ignore[arg-type]


def is_made(swap: ModalitySwap) -> bool:
    """Whether the swapped media are made from the clip's own, so that no partner clip is needed."""
    return swap.strategy in CORRUPTIONS


def partner_ids(swap: ModalitySwap, clip_id: str) -> tuple[str | None, str | None]:
    """Clips whose waveform and whose frames `apply_swap` needs; None where the clip's own or a made medium is shown."""
    if is_made(swap):
        return None, None
    audio, video = swap.audio_clip_id, swap.video_clip_id
    return (audio if audio != clip_id else None), (video if video != clip_id else None)


def fit_swap(swap: ModalitySwap, modality: str, clip_id: str) -> ModalitySwap | None:
    """A given swap as a pair whose prompt asks about `modality` can use it.

    Returns:
        The swap where it replaces what is asked about, or a part of it; narrowed where it replaces the other modality
        too; None where it replaces only the other one. An empty `modality` takes any.
    """
    asked, replaced = set(modality.split("_")) if modality else set(), set(swap.modality.split("_"))
    if not asked or replaced <= asked:
        return swap
    if not replaced & asked:
        return None
    heard = "audio" in asked
    return replace(
        swap,
        modality="audio" if heard else "video",
        audio_clip_id=swap.audio_clip_id if heard else clip_id,
        video_clip_id=clip_id if heard else swap.video_clip_id,
    )


def keeps_emotion(swap: ModalitySwap, clips: Mapping[str, Clip], clip_id: str) -> bool:
    """Whether a swap shows, by the annotation, the same emotion in every medium that it replaces.

    Such an input is no mismatch. Where an emotion is not annotated, or the media are made, that is not known: False.
    """
    audio, video = partner_ids(swap, clip_id)
    partners: dict[Modality, str | None] = {"audio": audio, "video": video}
    replaced = [(part, clips.get(other)) for part, other in partners.items() if other is not None]
    own = clips.get(clip_id)
    if own is None or not replaced:
        return False
    return all(other is not None and _emotion(own, part) == _emotion(other, part) != "" for part, other in replaced)


def made_swap(modality: Modality, strategy: str, clip_id: str, *, seed: int, level: float) -> ModalitySwap:
    """A swap whose media are made from the clip's own; seed and level count only where the strategy has them."""
    seed = 0 if strategy == "blank" else seed
    level = level if strategy == "diffusion" else 0.0
    name = f"{clip_id}~{strategy}" + (f"@{level:g}" if level else "") + (f":{seed}" if seed else "")
    return ModalitySwap(
        modality=modality,
        strategy=strategy,
        audio_clip_id=clip_id if modality == "video" else name,
        video_clip_id=clip_id if modality == "audio" else name,
        seed=seed,
        level=level,
    )


def choose_partner(
    query: Query,
    clip: Clip,
    candidates: Iterable[Clip],
    *,
    strategy: str,
    seed: int,
    durations_s: Mapping[str, float] | None = None,
    level: float = DEFAULT_LEVEL,
) -> ModalitySwap | None:
    """The mismatched input of one query; see `PartnerIndex.choose`, which serves many queries faster."""
    others = {c.clip_id: c for c in candidates} | {clip.clip_id: clip}
    return PartnerIndex(others.values(), durations_s).choose(query, strategy=strategy, seed=seed, level=level)


class PartnerIndex:
    """The clips of a corpus as swap partners of each other; holds no media."""

    def __init__(self, clips: Iterable[Clip], durations_s: Mapping[str, float] | None = None) -> None:
        """`durations_s`: length of each clip in seconds; without it every partner is as good as any."""
        self._clips = sorted(clips, key=lambda c: c.clip_id)
        self._by_id = {c.clip_id: c for c in self._clips}
        self._durations_s = dict(durations_s or {})
        self._emotions = {part: {_emotion(c, part) for c in self._clips} for part in _parts("audio_video")}

    def choose(self, query: Query, *, strategy: str, seed: int, level: float = DEFAULT_LEVEL) -> ModalitySwap | None:
        """The mismatched input of one query: a pure function of the corpus, the query and the seed.

        The partner is another clip of the same split, never of the same identity, source video or file where these
        are known. With "other_emotion" it is annotated with another emotion in the modality asked about (in both, for
        a question about both); with "random_clip" it only is not annotated with the same one. Among a few that fit,
        drawn by the seed, the nearest in duration is taken. For a question about one cue, clips that change its answer
        come first: those without a cue that is there, those with one that is not.

        Args:
            level: noise level of strategy "diffusion", above 0 to 1.

        Returns:
            The swap, or None when no clip qualifies.

        Raises:
            InputError: the strategy or the clip is unknown, or no clip of the corpus has another emotion.
        """
        if strategy not in STRATEGIES:
            raise InputError(f"unknown swap strategy {strategy!r}; known are {', '.join(STRATEGIES)}")
        if query.clip_id not in self._by_id:
            raise InputError(f"query {query.query_id} is about clip {query.clip_id}, which is not in the corpus")
        clip = self._by_id[query.clip_id]
        if strategy in CORRUPTIONS:
            made = int(digest("corruption", seed, clip.clip_id, strategy)[:8], 16)
            return made_swap(query.modality, strategy, clip.clip_id, seed=made, level=level)
        self.check_emotions(query.modality, strategy)
        rng = random.Random(digest("swap", seed, query.query_id, strategy))
        fits = partial(_fits, clip, modality=query.modality, strategy=strategy)
        shortlist = self._draw(rng, lambda other: _changes_answer(query, other) and fits(other))
        shortlist = shortlist or self._draw(rng, fits)
        if not shortlist:
            return None
        length = self._durations_s.get(clip.clip_id)
        gaps = [0.0 if length is None else abs(self._durations_s.get(c.clip_id, np.inf) - length) for c in shortlist]
        return _swap(query.modality, strategy, clip, shortlist[gaps.index(min(gaps))])

    def _draw(self, rng: random.Random, fits: Callable[[Clip], bool]) -> list[Clip]:
        """Up to SHORTLIST fitting clips in random order, without going through a large corpus for each query."""
        some = rng.sample(self._clips, min(FIRST_LOOK, len(self._clips)))
        found = [c for c in some if fits(c)]
        if len(found) < SHORTLIST and len(self._clips) > FIRST_LOOK:
            every = [c for c in self._clips if fits(c)]
            found = rng.sample(every, min(SHORTLIST, len(every)))
        return found[:SHORTLIST]

    def check_emotions(self, modality: Modality, strategy: str) -> None:
        """Refuses a strategy for which this corpus cannot have a partner.

        Raises:
            InputError: it has one emotion only, or none is annotated; says what can be set instead.
        """
        if strategy in CORRUPTIONS:
            return
        for part in _parts(modality):
            found = self._emotions[part]
            known = found - {""}
            if len(known) > 1 or (strategy == "random_clip" and "" in found):
                continue
            only = f"only the emotion {min(known)!r}" if known else "no emotion labels"
            other = "" if known else "random_clip, "
            raise InputError(
                f"the {len(self._clips)} clips have {only} in their {part}; a swap to another emotion needs two. "
                f"Add clips with other emotions, or set preference.swap to {other}{', '.join(CORRUPTIONS[:-1])} or "
                f"{CORRUPTIONS[-1]}."
            )


def as_shown(clip: Clip, swap: ModalitySwap, clips: Mapping[str, Clip]) -> Clip:
    """The annotation of a mismatched input: where a partner's medium is shown its cues and its emotion, where the
    medium is made useless ("noise", "blank") neither. What else the clip's own inventory names is absent there.

    Raises:
        InputError: the partner is not in `clips`.
    """
    swapped = _parts(swap.modality)
    cues = [cue for cue in clip.cues if cue.modality not in swapped]
    shown = {part: shown_emotion(clip, part) for part in _parts("audio_video")}
    for part in swapped:
        partner = None if is_made(swap) else _named(clips, swap, part)
        theirs = [cue for cue in partner.cues if cue.modality == part] if partner else []
        names = {cue.name for cue in theirs}
        own = [cue for cue in clip.cues if cue.modality == part and cue.name not in names]
        cues += [*theirs, *(replace(cue, present=False) for cue in own)]
        shown[part] = shown_emotion(partner, part) if partner else ""
    face, voice = shown["video"], shown["audio"]
    whole = face if face == voice else ""
    return replace(clip, cues=tuple(cues), emotion=whole, face_emotion=face, voice_emotion=voice)


def _named(clips: Mapping[str, Clip], swap: ModalitySwap, part: Modality) -> Clip:
    name = swap.video_clip_id if part == "video" else swap.audio_clip_id
    if name not in clips:
        raise InputError(f"a swap takes its {part} from clip {name}, which is not in the corpus")
    return clips[name]


def _parts(modality: Modality) -> tuple[Modality, ...]:
    return ("video", "audio") if modality == "audio_video" else (modality,)


def _emotion(clip: Clip, part: Modality) -> str:
    return canonical_emotion(shown_emotion(clip, part))


def _same_origin(clip: Clip, other: Clip) -> bool:
    """Whether both show the same person or come from the same video or file, as far as that is known."""
    return any(
        own and own == theirs
        for own, theirs in (
            (clip.identity, other.identity),
            (clip.source_video, other.source_video),
            (clip.sha256, other.sha256),
        )
    )


def _changes_answer(query: Query, other: Clip) -> bool:
    """Whether a question about one cue is answered otherwise about this clip; True also where no clip can."""
    if not query.about_cue or query.subtype == "spurious":
        return True
    there = any(cue.name == query.about_cue and cue.present for cue in other.cues)
    return there == (query.subtype == "hallucination")


def _fits(clip: Clip, other: Clip, modality: Modality, strategy: str) -> bool:
    if other.clip_id == clip.clip_id or other.split != clip.split or _same_origin(clip, other):
        return False
    pairs = [(_emotion(clip, part), _emotion(other, part)) for part in _parts(modality)]
    whole = canonical_emotion(clip.emotion)
    if modality == "audio_video" and whole and whole == canonical_emotion(other.emotion):
        return False
    if strategy == "random_clip":
        return all(not own or own != theirs for own, theirs in pairs)
    return all(own and theirs and own != theirs for own, theirs in pairs)


def _swap(modality: Modality, strategy: str, clip: Clip, partner: Clip) -> ModalitySwap:
    return ModalitySwap(
        modality=modality,
        strategy=strategy,
        audio_clip_id=clip.clip_id if modality == "video" else partner.clip_id,
        video_clip_id=clip.clip_id if modality == "audio" else partner.clip_id,
    )


def _made_media(clip: DecodedClip, swap: ModalitySwap) -> dict[str, object]:
    media: dict[str, object] = {}
    kind: Any = swap.strategy
    if swap.modality != "video":
        media["waveform"] = corrupt_waveform(clip.waveform, kind, seed=swap.seed, level=swap.level)
    if swap.modality != "audio":
        media["frames"] = corrupt_frames(clip.frames, kind, seed=swap.seed, level=swap.level)
    return media


def _partner(partner: DecodedClip | None, wanted: str, modality: str, clip: DecodedClip) -> DecodedClip:
    if partner is None or partner.clip_id != wanted:
        given = "nothing" if partner is None else partner.clip_id
        raise InputError(f"the swap of clip {clip.clip_id} takes its {modality} from clip {wanted}; got {given}")
    return partner


def _fit_waveform(waveform: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` of a waveform [S], with silence behind it when it is shorter."""
    fitted = np.zeros(samples, dtype=waveform.dtype)
    fitted[: min(samples, len(waveform))] = waveform[:samples]
    return fitted


def _fit_frames(partner: DecodedClip, clip: DecodedClip) -> np.ndarray:
    """The partner's frames [T, H, W, 3], as many as the clip has."""
    if partner.frames.shape[1:] != clip.frames.shape[1:] or len(partner.frames) == 0:
        raise InputError(
            f"clip {partner.clip_id} has frames of shape {partner.frames.shape}, clip {clip.clip_id} "
            f"{clip.frames.shape}; a swap needs frames of one size. Decode both with the same settings."
        )
    wanted = len(clip.frames)
    if len(partner.frames) == wanted:
        return partner.frames
    return partner.frames[np.linspace(0, len(partner.frames) - 1, wanted).round().astype(int)]
