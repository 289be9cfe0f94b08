"""One preference example between the formats: a prompt, its responses and media files, with the place it was read at.

What a foreign format has no field for travels in a field of our own, `avere_ray`, that other trainers ignore: ids,
kinds and sources of the rejects, the swap, the query, the clips' annotations but for their cues. So our pairs come
back exactly as they left. Texts and paths are always read from the format's own fields, so an edited file means what it
says.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError, RowError
from avere_ray.formats.own import wrong_shape
from avere_ray.rows import Row

OWN = "avere_ray"
"""Name of the extra field."""
_TAG = re.compile(r"<(video|audio|image)>\n?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """The files of one input: what is seen, and what is heard."""

    video: str
    """Path of the video file."""
    audio: str = ""
    """Path of a separate audio file; empty when the sound is in the video file."""

    @property
    def sound(self) -> str:
        """The file that is heard."""
        return self.audio or self.video


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row of a preference data set, or the rows of one pair joined."""

    place: str = field(compare=False)
    """File and line or row it was read at; the first of several."""
    rows: int = field(default=1, compare=False)
    """How many rows it was read from."""
    prompt: str
    """The question, without media tags."""
    chosen: str
    """Preferred response."""
    rejected: tuple[str, ...]
    """Rejected responses under the same media; may be empty for a row about media alone."""
    media: Media
    """The example's own media."""
    rejected_media: Media | None = None
    """The mismatched input; None when the row has none."""
    modality: str = ""
    """What the prompt asks about, where the row says it."""
    own: Mapping[str, Any] | None = None
    """Our own field; None in foreign data."""
    branches: tuple[int, ...] = ()
    """Where a pair has several rows: the number of each reject among those of the pair, as it was written."""
    swap_elsewhere: bool = False
    """Whether another row of the pair holds its mismatched input, so that this one says nothing of it."""


# Reading ----------------------------------------------------------------------------------------------------------


def text_field(row: Row, name: str, place: str) -> str:
    """A text that must be there.

    Raises:
        RowError: it is missing, empty or no text ("bad_row").
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise bad_field(place, name, value, "must be a text that is not empty")
    return value


def response_text(value: Any, name: str, place: str) -> str:
    """A response given as text, or as messages that end with the assistant's.

    Raises:
        RowError: it is neither, or empty ("bad_row").
    """
    if isinstance(value, list) and value:
        last = value[-1]
        if not isinstance(last, dict) or last.get("role") not in ("assistant", None):
            raise bad_field(place, name, value, "must end with a message of the assistant")
        value = _content(last.get("content"), name, place, {})
    return text_field({name: value}, name, place)


def prompt_of(messages: Any, name: str, place: str, *, ignore_system: bool) -> tuple[str, dict[str, list[str]]]:
    """The words of a prompt (text, or messages with one question), and the media paths inside its typed parts.

    Raises:
        RowError: it is no such prompt ("bad_row"), has several turns ("multi_turn") or a system message
            ("system_message"), which our prompts have no place for.
    """
    media: dict[str, list[str]] = {"video": [], "audio": [], "image": []}
    if isinstance(messages, str):
        return strip_tags(text_field({name: messages}, name, place), place), media
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise bad_field(place, name, messages, "must be a text or a list of messages")
    if any(m.get("role") == "system" and m.get("content") for m in messages) and not ignore_system:
        raise RowError(
            "system_message", f"{place}: field {name} has a system message, which is not carried over. Pass "
            "--ignore-system to leave it out."
        )  # fmt: skip
    asked = [m for m in messages if m.get("role") != "system"]
    if len(asked) != 1 or asked[0].get("role") != "user":
        raise RowError("multi_turn", f"{place}: field {name} has {len(asked)} turns; one question is allowed.")
    text = strip_tags(_content(asked[0].get("content"), name, place, media), place)
    if not text.strip():
        raise bad_field(place, name, text, "has no question")
    return text, media


def strip_tags(text: str, place: str) -> str:
    """The text without <video> and <audio>.

    Raises:
        RowError: it has an <image> ("unsupported_media").
    """
    if "<image>" in text:
        raise RowError("unsupported_media", f"{place}: the prompt shows an image; only video and audio are supported.")
    return _TAG.sub("", text)


def paths(row: Row, name: str, place: str) -> list[str]:
    """A list of paths; a single text counts as one, null as none.

    Raises:
        RowError: it is something else ("bad_row").
    """
    value = row.get(name)
    items = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise bad_field(place, name, value, "must be a list of paths")
    return items


def media_of(row: Row, place: str, inside: Mapping[str, Sequence[str]]) -> Media:
    """The media of a row with `videos` and `audios`, or those inside its prompt.

    Raises:
        RowError: there is an image ("unsupported_media"), no video ("no_media", "no_video"), or several of one kind
            ("many_media").
    """
    if paths(row, "images", place) or inside.get("image"):
        raise RowError("unsupported_media", f"{place}: the row shows an image; only video and audio are supported.")
    videos = _distinct([*paths(row, "videos", place), *inside.get("video", ())])
    audios = _distinct([*paths(row, "audios", place), *inside.get("audio", ())])
    for name, found in (("videos", videos), ("audios", audios)):
        if len(found) > 1:
            raise RowError("many_media", f"{place}: field {name} has {len(found)} files; one is allowed.")
    if not videos:
        what = "audio alone" if audios else "no media"
        raise RowError("no_video" if audios else "no_media", f"{place}: the row has {what}; a clip needs a video.")
    return _media(videos[0], audios[0] if audios else videos[0])


def rejected_media_of(row: Row, place: str, own: Media) -> Media | None:
    """The mismatched input of `rejected_videos` and `rejected_audios`; what is not named stays the row's own.

    Raises:
        RowError: there are several of one kind ("many_media"), or images ("unsupported_media").
    """
    if paths(row, "rejected_images", place):
        raise RowError("unsupported_media", f"{place}: rejected_images; only video and audio are supported.")
    videos, audios = paths(row, "rejected_videos", place), paths(row, "rejected_audios", place)
    if len(videos) > 1 or len(audios) > 1:
        raise RowError("many_media", f"{place}: rejected_videos and rejected_audios may have one file each.")
    if not videos and not audios:
        return None
    return changed_media(own, videos[0] if videos else own.video, audios[0] if audios else own.sound, place)


def changed_media(own: Media, video: str, sound: str, place: str) -> Media | None:
    """The mismatched input.

    Raises:
        RowError: it shows the same as the row's own media ("same_media").
    """
    if (video, sound) == (own.video, own.sound):
        raise RowError("same_media", f"{place}: the rejected media are those of the row itself. Give others, or none.")
    return _media(video, sound)


def own_field(value: Any, place: str) -> Mapping[str, Any] | None:
    """Our own field, an object or its JSON text; None when there is none.

    Raises:
        RowError: it is something else ("bad_row").
    """
    if value is None:
        return None
    found = object_field(value, OWN, place)
    if (wrong := wrong_shape(found)) is not None:
        raise bad_field(place, f"{OWN}.{wrong[0]}", found, wrong[1])
    return found


def object_field(value: Any, name: str, place: str) -> dict[str, Any]:
    """An object, or its JSON text; null is an empty one.

    Raises:
        RowError: it is something else ("bad_row").
    """
    try:
        found = json.loads(value) if isinstance(value, str) else {} if value is None else value
    except ValueError as error:
        raise bad_field(place, name, value, f"is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise bad_field(place, name, value, "must be an object")
    return found


# Writing ----------------------------------------------------------------------------------------------------------


def check_prompt(prompt: str, name: str) -> None:
    """Refuses a prompt whose own words contain a media tag, which every foreign format would read as a medium.

    Raises:
        InputError: names the pair and the prompt.
    """
    if _TAG.search(prompt):
        raise InputError(f"pair {name}: its prompt {prompt[:60]!r} contains a media tag; reword it to convert it.")


def branch_own(example: Example, **changes: Any) -> dict[str, Any]:
    """Our own field with what one row needs besides."""
    return {**(example.own or {}), **changes}


def branch_of(own: Mapping[str, Any] | None) -> int | None:
    """The number of a row among those of its pair; None where our own field does not say it."""
    return own.get("branch") if own and own.get("pair_id") else None


def join_branches(examples: Iterable[Example]) -> list[Example]:
    """Rows with the same pair id in our own field become one example, wherever they stand, in the order they were
    written. Those that differ in prompt, chosen response or media stay apart, and so does a second copy of a row."""
    groups: list[dict[int, Example]] = []
    by_pair: dict[tuple[Any, ...], list[dict[int, Example]]] = {}
    for number, example in enumerate(examples):
        branch = branch_of(example.own)
        pair = ((example.own or {}).get("pair_id") if branch is not None else number, example.prompt, example.chosen,
                example.media)  # fmt: skip
        copies = by_pair.setdefault(pair, [])
        group = next((copy for copy in copies if (branch or 0) not in copy), None)
        if group is None:
            group = {}
            copies.append(group)
            groups.append(group)
        group[branch or 0] = example
    return [functools.reduce(_join, (group[branch] for branch in sorted(group))) for group in groups]


def _join(first: Example, second: Example) -> Example:
    return replace(
        first,
        rejected=(*first.rejected, *second.rejected),
        rejected_media=first.rejected_media or second.rejected_media,
        modality=first.modality or second.modality,
        branches=(*first.branches, *second.branches),
        swap_elsewhere=first.swap_elsewhere and second.swap_elsewhere,
        rows=first.rows + second.rows,
    )


def _content(content: Any, name: str, place: str, media: dict[str, list[str]]) -> str:
    """The text of a message's content; media paths of typed parts are added to `media`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise bad_field(place, name, content, "has a message whose content is neither text nor a list of parts")
    texts: list[str] = []
    for part in content:
        kind = part.get("type")
        if kind == "text":
            texts.append(_part(part, ("text",), name, place))
        elif kind in ("video", "audio", "image"):
            path = _part(part, (kind, "path", "url"), name, place)
            media.setdefault(kind, []).extend([path] if path else [])
        else:
            raise bad_field(place, name, part, "has a part that is neither text, video nor audio")
    return "\n".join(texts)


def _part(part: Mapping[str, Any], keys: Sequence[str], name: str, place: str) -> str:
    """The first of these values of a typed part that is there; "" when none is."""
    value = next((part[key] for key in keys if part.get(key)), "")
    if not isinstance(value, str):
        raise bad_field(place, name, part, f"has a part whose {keys[0]} is no text")
    return value


def _media(video: str, sound: str) -> Media:
    return Media(video=video, audio="" if sound == video else sound)


def _distinct(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def bad_field(place: str, name: str, value: Any, what: str) -> RowError:
    """The error for one field of a row: what is wrong with its value."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return RowError("bad_row", f"{place}: field {name} = {shown} {what}. Correct or remove the row.")


def absolute(path: str, root: Path) -> str:
    """A path as read, relative to `root`, made absolute; remote addresses stay."""
    return path if "://" in path else str((root / path).absolute())


def row_name(place: str) -> str:
    """The row of a place without its file, "line 3": how the ledger names a row."""
    return " ".join(place.rsplit(" ", 2)[-2:])
