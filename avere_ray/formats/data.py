"""A preference data set as our records: pairs, their queries and their clips; and the way from and to examples."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from avere_ray.arrow import from_row, to_row
from avere_ray.asked import SURE_ENOUGH, asked_modality
from avere_ray.errors import RowError
from avere_ray.formats.example import Example, Media, absolute, check_prompt, row_name
from avere_ray.ledger import Ledger
from avere_ray.modality import is_made
from avere_ray.records import Clip, Modality, ModalitySwap, PreferencePair, Query, Reject, RejectKind
from avere_ray.stages import digest

FOREIGN = "data"
"""Source of texts, and strategy of swaps, that come from a foreign data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """What foreign data do not say."""

    media: Path | None = None
    """Folder that media paths are relative to; None is the data file's own."""
    modality: Modality | None = None
    """What every prompt asks about, whatever the rules say; None lets row, rules and swap decide, in this order."""
    unclear: Modality | None = None
    """What prompts ask about where neither row nor rules nor swap is sure; None drops such rows."""
    kinds: tuple[RejectKind, ...] = (RejectKind.HALLUCINATED, RejectKind.SPURIOUS)
    """Kinds of the first, second, ... reject; the last one holds for the rest."""
    ignore_system: bool = False
    """Leave system messages out instead of dropping the row."""


@dataclass(slots=True)
class PreferenceData:
    """Pairs with everything they refer to."""

    pairs: list[PreferencePair] = field(default_factory=list)
    inputs: int = 0
    """Rows that were read, those of one pair counted as one; each is a pair, or a drop of the ledger."""
    queries: dict[str, Query] = field(default_factory=dict)
    """By query id; pairs of old runs may lack theirs."""
    clips: dict[str, Clip] = field(default_factory=dict)
    """By clip id, own and partner clips; uris relative to `root`."""
    root: Path = Path()
    """Folder that the clips' uris are relative to."""
    places: dict[str, str] = field(default_factory=dict)
    """Pair id to the file and row it was read at."""
    decided: Counter[str] = field(default_factory=Counter)
    """How the modality of the prompts was found: "row", "rules", "swap", "override", "unclear"."""

    def media(self, clip_id: str) -> Media:
        """Absolute paths of a clip's files.

        Raises:
            KeyError: no such clip.
        """
        clip = self.clips[clip_id]
        audio = absolute(clip.audio_uri, self.root) if clip.audio_uri else ""
        return Media(video=absolute(clip.uri, self.root), audio=audio)


# Records to examples ----------------------------------------------------------------------------------------------


def to_examples(data: PreferenceData) -> list[Example]:
    """One example a pair, media as absolute paths.

    Raises:
        InputError: a prompt cannot be held by other formats.
        KeyError: a pair's clip is not there.
    """
    return [_example(pair, data) for pair in data.pairs]


def _example(pair: PreferencePair, data: PreferenceData) -> Example:
    check_prompt(pair.prompt, pair.pair_id)
    # The hallucinated reject first: the order in which foreign formats with two rejects have them.
    order = sorted(range(len(pair.rejects)), key=lambda i: pair.rejects[i].kind is not RejectKind.HALLUCINATED)
    query = data.queries.get(pair.query_id)
    media = data.media(pair.clip_id)
    partners = {c: data.media(c) for c in _partner_ids(pair)}
    own: dict[str, Any] = {
        "pair_id": pair.pair_id,
        "query_id": pair.query_id,
        "clip_id": pair.clip_id,
        "modality": pair.modality,
        "chosen_source": pair.chosen_source,
        "rejects": [{"at": i, "kind": pair.rejects[i].kind.value, "source": pair.rejects[i].source} for i in order],
        "swap": to_row(pair.swap) if pair.swap else None,
        "partners": {c: {"video": m.video, "audio": m.audio} for c, m in partners.items()},
        "clips": {c: _annotations(data.clips[c]) for c in (pair.clip_id, *partners)},
        "query": to_row(query) if query else None,
    }
    return Example(
        place=data.places.get(pair.pair_id, pair.pair_id),
        prompt=pair.prompt,
        chosen=pair.chosen,
        rejected=tuple(pair.rejects[i].text for i in order),
        media=media,
        rejected_media=_swapped_media(pair.clip_id, pair.swap, media, partners),
        modality=pair.modality,
        own=own,
    )


def _annotations(clip: Clip) -> dict[str, Any]:
    """What a clip is annotated with, without its files and its cue inventory."""
    known = to_row(clip)
    empty = to_row(Clip(clip_id="", uri=""))
    return {n: v for n, v in known.items() if n not in ("clip_id", "uri", "audio_uri", "cues") and v != empty[n]}


def _partner_ids(pair: PreferencePair) -> list[str]:
    if pair.swap is None or is_made(pair.swap):
        return []
    ids = (pair.swap.video_clip_id, pair.swap.audio_clip_id)
    return [c for c in dict.fromkeys(ids) if c != pair.clip_id]


def _swapped_media(clip_id: str, swap: ModalitySwap | None, own: Media, partners: Mapping[str, Media]) -> Media | None:
    """The files a swap shows; None without a swap, and for made media, which no file holds."""
    if swap is None or is_made(swap):
        return None
    video = own.video if swap.video_clip_id == clip_id else partners[swap.video_clip_id].video
    sound = own.sound if swap.audio_clip_id == clip_id else partners[swap.audio_clip_id].sound
    return Media(video=video, audio="" if sound == video else sound)


# Examples to records ----------------------------------------------------------------------------------------------


def from_examples(examples: Iterable[Example], options: ReadOptions, ledger: Ledger) -> PreferenceData:
    """Our records of examples, media relative to no folder but absolute; every example ends as a pair or a drop."""
    examples = list(examples)
    data = PreferenceData()
    clips = _Clips(data.clips)
    clips.annotate(example.own or {} for example in examples)
    for example in examples:
        clips.add(example.media, str((example.own or {}).get("clip_id") or ""))
    for example in examples:
        try:
            pair, query, how = _records(example, clips, options)
        except RowError as error:
            ledger.drop(row_name(example.place), error.reason, error.message)
            continue
        pair = replace(pair, pair_id=_fresh(pair.pair_id, data.places))
        data.pairs.append(pair)
        data.places[pair.pair_id] = example.place
        data.queries[query.query_id] = query
        data.decided[how] += 1
    used = {c for p in data.pairs for c in (p.clip_id, *_partner_ids(p))}
    data.clips = {c: clip for c, clip in data.clips.items() if c in used}
    return data


class _Clips:
    """Clips by their files; a file keeps the clip it was first met in."""

    def __init__(self, clips: dict[str, Clip]) -> None:
        self.clips = clips
        self._by_media: dict[Media, str] = {}
        self._by_file: dict[str, str] = {}
        self._annotations: dict[str, Mapping[str, Any]] = {}

    def add(self, media: Media, clip_id: str = "") -> str:
        """The id of the clip with these files: the wanted one where it is free or has these very files."""
        have = self.clips.get(clip_id)
        if have is not None and (have.uri, have.audio_uri) == (media.video, media.audio):
            return clip_id
        if clip_id and have is None:
            return self._register(media, clip_id)
        if media in self._by_media:
            return self._by_media[media]
        return self._register(media, f"{PurePosixPath(media.video).stem}-{digest(media.video, media.audio)[:8]}")

    def _register(self, media: Media, clip_id: str) -> str:
        files = {"clip_id": clip_id, "uri": media.video, "audio_uri": media.audio}
        self.clips[clip_id] = from_row(Clip, {**self._annotations.get(clip_id, {}), **files})
        self._by_media.setdefault(media, clip_id)
        for file in (media.video, media.sound):
            self._by_file.setdefault(file, clip_id)
        return clip_id

    def annotate(self, owns: Iterable[Mapping[str, Any]]) -> None:
        """Notes the annotations of our own field, for clips of these ids."""
        for own in owns:
            for clip_id, values in (own.get("clips") or {}).items():
                self._annotations.setdefault(clip_id, values)

    def knows(self, path: str) -> bool:
        """Whether a file is some clip's picture or sound."""
        return path in self._by_file

    def of_file(self, path: str) -> str:
        """The id of the clip whose picture or sound this file is; a new one when there is none."""
        return self._by_file.get(path) or self.add(Media(video=path))


def _records(example: Example, clips: _Clips, options: ReadOptions) -> tuple[PreferencePair, Query, str]:
    if not example.rejected:
        raise RowError(
            "no_reject", f"{example.place}: rejected media but no rejected response; a pair needs one. Add one."
        )
    own = example.own or {}
    clip_id = clips.add(example.media, str(own.get("clip_id") or ""))
    swap = _swap(example, clip_id, clips)
    modality, confidence, how = _modality(example, swap, options)
    rejects = _rejects(example, options)
    query = _query(example, clip_id, modality, confidence)
    key = digest(query.query_id, example.chosen, example.rejected)
    pair = PreferencePair(
        pair_id=str(own.get("pair_id") or f"{query.query_id}~{key[:12]}"),
        query_id=query.query_id,
        clip_id=clip_id,
        modality=modality,
        prompt=example.prompt,
        chosen=example.chosen,
        chosen_source=str(own.get("chosen_source") or FOREIGN),
        rejects=rejects,
        swap=swap,
    )
    return pair, query, how


def _query(example: Example, clip_id: str, modality: Modality, confidence: float) -> Query:
    own = example.own or {}
    if own.get("query"):
        kept = from_row(Query, dict(own["query"]))
        if (kept.prompt, kept.modality) == (example.prompt, modality):
            return replace(kept, clip_id=clip_id)
    return Query(
        query_id=str(own.get("query_id") or f"{clip_id}/{digest(example.prompt)[:8]}"),
        clip_id=clip_id,
        modality=modality,
        task=FOREIGN,
        prompt=example.prompt,
        modality_confidence=confidence,
    )


def _modality(example: Example, swap: ModalitySwap | None, options: ReadOptions) -> tuple[Modality, float, str]:
    """What the prompt asks about, how sure that is, and what decided."""
    if options.modality is not None:
        return options.modality, 1.0, "override"
    said: Any = (example.own or {}).get("modality") or example.modality
    if said:
        if said not in get_args(Modality):
            raise RowError(
                "bad_row", f"{example.place}: field modality = {said!r}; allowed: {', '.join(get_args(Modality))}."
            )
        return said, 1.0, "row"
    asked = asked_modality(example.prompt)
    if asked.confidence >= SURE_ENOUGH:
        return asked.modality, asked.confidence, "rules"
    if swap is not None:
        return swap.modality, SURE_ENOUGH, "swap"
    if options.unclear is not None:
        return options.unclear, asked.confidence, "unclear"
    raise RowError(
        "modality_unclear",
        f"{example.place}: field prompt = {example.prompt[:60]!r} does not say whether it asks about audio, video or "
        f"both ({asked.why}). Add a field modality to the row, or pass --unclear or --modality.",
    )


def _rejects(example: Example, options: ReadOptions) -> tuple[Reject, ...]:
    known: Sequence[Mapping[str, Any]] = (example.own or {}).get("rejects") or ()
    if example.branches and max(example.branches) < len(known):
        known = [known[branch] for branch in example.branches]
    if len(known) == len(example.rejected):
        rows = sorted(zip(known, example.rejected, strict=True), key=lambda row: row[0]["at"])
        return tuple(Reject(kind=RejectKind(k["kind"]), text=text, source=k["source"]) for k, text in rows)
    kinds = [options.kinds[min(i, len(options.kinds) - 1)] for i in range(len(example.rejected))]
    return tuple(Reject(kind=k, text=t, source=FOREIGN) for k, t in zip(kinds, example.rejected, strict=True))


def _swap(example: Example, clip_id: str, clips: _Clips) -> ModalitySwap | None:
    own = example.own or {}
    if own.get("swap") and own.get("clip_id") == clip_id:
        swap = from_row(ModalitySwap, dict(own["swap"]))
        partners = {c: Media(**m) for c, m in (own.get("partners") or {}).items()}
        elsewhere = example.swap_elsewhere and example.rejected_media is None
        shown = None if is_made(swap) or elsewhere else _swapped_media(clip_id, swap, example.media, partners)
        if shown == example.rejected_media or is_made(swap):
            names = {c: clips.add(media, c) for c, media in partners.items()}
            return replace(
                swap,
                audio_clip_id=names.get(swap.audio_clip_id, swap.audio_clip_id),
                video_clip_id=names.get(swap.video_clip_id, swap.video_clip_id),
            )
    if example.rejected_media is None:
        return None
    return _foreign_swap(example.media, example.rejected_media, clip_id, clips)


def _foreign_swap(own: Media, other: Media, clip_id: str, clips: _Clips) -> ModalitySwap:
    seen, heard = other.video != own.video, other.sound != own.sound
    modality: Modality = "audio_video" if seen and heard else "video" if seen else "audio"
    if seen and heard and not clips.knows(other.sound):
        video = audio = clips.add(other)
    else:
        video = clips.of_file(other.video) if seen else clip_id
        audio = clips.of_file(other.sound) if heard else clip_id
    return ModalitySwap(modality=modality, strategy=FOREIGN, audio_clip_id=audio, video_clip_id=video)


def _fresh(name: str, taken: Mapping[str, str]) -> str:
    """The name, with a number behind it when a row of the same content came before."""
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{name}#{number}"
    return fresh
