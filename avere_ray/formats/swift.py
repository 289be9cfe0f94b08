"""ms-swift's standard format for DPO.

    {"messages": [{"role": "user", "content": "<video><audio>question"}, {"role": "assistant", "content": "..."}],
     "rejected_response": "...", "videos": ["a.mp4"], "audios": ["a.wav"],
     "rejected_videos": ["b.mp4"], "rejected_audios": ["a.wav"]}

Read besides: `rejected_messages`, and `rejected_response` as messages. ms-swift compares one branch a row: rejected
text, rejected media, or both. A pair is written as one row for each reject and one with its mismatched input alone,
which our own field joins again. A foreign row with both is read as a reject and a mismatched input, which are separate
terms here; a foreign row with media alone has no reject and is dropped.
"""

from typing import Any

from avere_ray.errors import RowError
from avere_ray.formats.example import (
    OWN,
    Example,
    branch_of,
    branch_own,
    media_of,
    own_field,
    prompt_of,
    rejected_media_of,
    response_text,
)
from avere_ray.rows import Row

TAGS = "<video><audio>"


def read_row(row: Row, place: str, *, ignore_system: bool = False) -> Example:
    """One row.

    Raises:
        RowError: a field is missing or wrong.
    """
    messages = row.get("messages")
    if not isinstance(messages, list) or len(messages) < 2:
        raise RowError("bad_row", f"{place}: field messages must be a list that ends with the assistant's answer.")
    prompt, inside = prompt_of(messages[:-1], "messages", place, ignore_system=ignore_system)
    media = media_of(row, place, inside)
    rejected = _rejected(row, place)
    own = own_field(row.get(OWN), place)
    branch = branch_of(own)
    return Example(
        place=place,
        prompt=prompt,
        chosen=response_text(messages, "messages", place),
        rejected=rejected,
        media=media,
        rejected_media=rejected_media_of(row, place, media),
        modality=str(row.get("modality") or ""),
        own=own,
        branches=() if branch is None else (branch,) * len(rejected),
        swap_elsewhere=branch is not None and bool(rejected),
    )


def write_rows(example: Example) -> list[Row]:
    """One row for each reject, and one for the mismatched input."""
    shared: Row = {
        "messages": [
            {"role": "user", "content": TAGS + example.prompt},
            {"role": "assistant", "content": example.chosen},
        ],
        "videos": [example.media.video],
        "audios": [example.media.sound],
    }
    branches: list[dict[str, Any]] = [{"rejected_response": text} for text in example.rejected]
    if example.rejected_media is not None:
        swapped = example.rejected_media
        branches.append({"rejected_videos": [swapped.video], "rejected_audios": [swapped.sound]})
    return [{**shared, **b, OWN: branch_own(example, branch=i)} for i, b in enumerate(branches)]


def _rejected(row: Row, place: str) -> tuple[str, ...]:
    for name in ("rejected_response", "rejected_messages"):
        if row.get(name) is not None:
            return (response_text(row[name], name, place),)
    return ()


def fits(row: Row) -> bool:
    """Whether a row looks like this format."""
    return "messages" in row
