"""Modality swaps: the input in which only the modality a prompt asks about comes from another clip.

The paper's prompt-based modality preference (section 3.3) compares the chosen response under the clip and under this
mismatched input. For a question about both, frames and waveform come from one other clip, so that they still match
each other. Everything here is pure: a choice depends on the corpus, the query and the seed, never on what was asked
before.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from avere_ray.errors import InputError
from avere_ray.prompts import shown_emotion
from avere_ray.records import Clip, DecodedClip, Modality, ModalitySwap, Query
from avere_ray.stages import digest

STRATEGIES = ("other_emotion", "random_clip")
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
        swap: which modality comes from which clip.
        audio: the clip `swap.audio_clip_id`; may be None when audio is not swapped.
        video: the clip `swap.video_clip_id`; may be None when video is not swapped.

    Raises:
        InputError: a partner is missing, is another clip than the swap names, or has frames of another size.
    """
    changes: dict[str, object] = {}
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


def choose_partner(
    query: Query,
    clip: Clip,
    candidates: Iterable[Clip],
    *,
    strategy: str,
    seed: int,
    durations_s: Mapping[str, float] | None = None,
) -> ModalitySwap | None:
    """The mismatched input of one query; see `PartnerIndex.choose`, which serves many queries faster."""
    others = {c.clip_id: c for c in candidates} | {clip.clip_id: clip}
    return PartnerIndex(others.values(), durations_s).choose(query, strategy=strategy, seed=seed)


class PartnerIndex:
    """The clips of a corpus as swap partners of each other; holds no media."""

    def __init__(self, clips: Iterable[Clip], durations_s: Mapping[str, float] | None = None) -> None:
        """`durations_s`: length of each clip in seconds; without it every partner is as good as any."""
        self._clips = sorted(clips, key=lambda c: c.clip_id)
        self._by_id = {c.clip_id: c for c in self._clips}
        self._durations_s = dict(durations_s or {})
        self._emotions = {part: {shown_emotion(c, part) for c in self._clips} - {""} for part in _parts("audio_video")}

    def choose(self, query: Query, *, strategy: str, seed: int) -> ModalitySwap | None:
        """The mismatched input of one query: a pure function of the corpus, the query and the seed.

        The partner is another clip of the same split, never of the same identity where identities are known. With
        "other_emotion" it shows another emotion in the modality asked about (in both, for a question about both).

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
        if strategy == "other_emotion":
            self._check_emotions(query.modality)
        rng = random.Random(digest("swap", seed, query.query_id, strategy))
        shortlist = self._draw(rng, lambda other: _fits(clip, other, query.modality, strategy))
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

    def _check_emotions(self, modality: Modality) -> None:
        for part in _parts(modality):
            found = self._emotions[part]
            if len(found) < 2:
                only = f"only the emotion {min(found)!r}" if found else "no emotion labels"
                raise InputError(
                    f"the {len(self._clips)} clips have {only} in their {part}; a swap to another emotion needs two. "
                    "Add clips with other emotions, or set preference.swap to random_clip."
                )


def _parts(modality: Modality) -> tuple[Modality, ...]:
    return ("video", "audio") if modality == "audio_video" else (modality,)


def _fits(clip: Clip, other: Clip, modality: Modality, strategy: str) -> bool:
    same_person = bool(clip.identity) and clip.identity == other.identity
    if other.clip_id == clip.clip_id or other.split != clip.split or same_person:
        return False
    if strategy == "random_clip":
        return True
    pairs = [(shown_emotion(clip, part), shown_emotion(other, part)) for part in _parts(modality)]
    return all(own and theirs and own != theirs for own, theirs in pairs)


def _swap(modality: Modality, strategy: str, clip: Clip, partner: Clip) -> ModalitySwap:
    return ModalitySwap(
        modality=modality,
        strategy=strategy,
        audio_clip_id=clip.clip_id if modality == "video" else partner.clip_id,
        video_clip_id=clip.clip_id if modality == "audio" else partner.clip_id,
    )


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
