"""AVERE's JSON list, as its training code reads it (`avere/train/dpo_train.py`, AudioVisualDPODataset).

    {"prompt": "<video>\\n<audio>\\nquestion", "chosen": "...", "rejected": "...", "rejected_2": "...",
     "video": "a.mp4", "audio": "a.wav", "video_l": "b.mp4", "audio_l": "a.wav"}

`prompt` must begin with the two tags. Which reject is which the released code does not say; its name for the second,
"rejected_ir" (irrelevant), makes it the spurious one, so `rejected` is read as hallucinated. Its collator takes
both: a single reject is written into both fields, where the two weights add up to its own, and our own field says so.
Rejects beyond two travel there too. A row without rejected_2 is read as one with a single reject. Without video_l and
audio_l the released trainer shows noise; here such a row has no mismatched input. A clip without a separate audio file
names the video file as its audio.
"""

from avere_ray.errors import RowError
from avere_ray.formats.example import (
    OWN,
    Example,
    Media,
    branch_own,
    changed_media,
    own_field,
    strip_tags,
    text_field,
)
from avere_ray.rows import Row

TAGS = "<video>\n<audio>\n"


def read_row(row: Row, place: str, *, ignore_system: bool = False) -> Example:
    """One row.

    Raises:
        RowError: a field is missing or wrong.
    """
    prompt = text_field(row, "prompt", place)
    if not prompt.startswith(TAGS):
        raise RowError("bad_row", f"{place}: field prompt = {prompt[:40]!r} must begin with {TAGS!r}.")
    video, audio = text_field(row, "video", place), text_field(row, "audio", place)
    own_media = Media(video=video, audio="" if audio == video else audio)
    own = own_field(row.get(OWN), place)
    rejected = [text_field(row, "rejected", place)]
    if row.get("rejected_2") is not None:
        rejected.append(text_field(row, "rejected_2", place))
    if own and own.get("repeated_reject") and len(set(rejected)) == 1:
        rejected = rejected[:1]
    rejected += [str(text) for text in (own or {}).get("more_rejected", ())]
    return Example(
        place=place,
        prompt=strip_tags(prompt, place),
        chosen=text_field(row, "chosen", place),
        rejected=tuple(rejected),
        media=own_media,
        rejected_media=_rejected_media(row, place, own_media),
        modality=str(row.get("modality") or ""),
        own=own,
    )


def write_rows(example: Example) -> list[Row]:
    """One row."""
    row: Row = {
        "prompt": TAGS + example.prompt,
        "chosen": example.chosen,
        "rejected": example.rejected[0],
        "rejected_2": example.rejected[:2][-1],
        "video": example.media.video,
        "audio": example.media.sound,
    }
    if example.rejected_media is not None:
        row |= {"video_l": example.rejected_media.video, "audio_l": example.rejected_media.sound}
    own = branch_own(example, more_rejected=list(example.rejected[2:]), repeated_reject=len(example.rejected) == 1)
    return [{**row, OWN: own}]


def _rejected_media(row: Row, place: str, own: Media) -> Media | None:
    names = [name for name in ("video_l", "audio_l") if row.get(name) is not None]
    if not names:
        return None
    video = text_field(row, "video_l", place) if "video_l" in names else own.video
    sound = text_field(row, "audio_l", place) if "audio_l" in names else own.sound
    return changed_media(own, video, sound, place)


def fits(row: Row) -> bool:
    """Whether a row looks like this format."""
    return {"prompt", "chosen", "rejected", "video", "audio"} <= row.keys()
