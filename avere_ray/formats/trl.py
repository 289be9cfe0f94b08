"""TRL's conversational preference format with `videos` and `audios` columns.

    {"prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "audio"}, {"type": "text", "text": "..."}]}],
     "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "..."}]}], "rejected": [...],
     "videos": ["a.mp4"], "audios": ["a.wav"]}

Read besides: contents and responses as plain text, and the implicit prompt (no `prompt`; `chosen` and `rejected` are
whole conversations). TRL has one reject a row, so a pair with several is written as as many rows, which our own field
joins again. `rejected_videos` and `rejected_audios`, which TRL ignores, hold a mismatched input, in the first of them.
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


def read_row(row: Row, place: str, *, ignore_system: bool = False) -> Example:
    """One row.

    Raises:
        RowError: a field is missing or wrong.
    """
    prompt = row.get("prompt") if row.get("prompt") is not None else _implicit_prompt(row, place)
    text, inside = prompt_of(prompt, "prompt", place, ignore_system=ignore_system)
    media = media_of(row, place, inside)
    own = own_field(row.get(OWN), place)
    branch = branch_of(own)
    return Example(
        place=place,
        prompt=text,
        chosen=response_text(row.get("chosen"), "chosen", place),
        rejected=(response_text(row.get("rejected"), "rejected", place),),
        media=media,
        rejected_media=rejected_media_of(row, place, media),
        modality=str(row.get("modality") or ""),
        own=own,
        branches=() if branch is None else (branch,),
        swap_elsewhere=bool(branch),
    )


def write_rows(example: Example) -> list[Row]:
    """One row for each reject."""
    content = [{"type": "video"}, {"type": "audio"}, {"type": "text", "text": example.prompt}]
    rows: list[Row] = []
    for number, rejected in enumerate(example.rejected):
        swapped = example.rejected_media if number == 0 else None
        rows.append(
            {
                "prompt": [{"role": "user", "content": content}],
                "chosen": _answer(example.chosen),
                "rejected": _answer(rejected),
                "videos": [example.media.video],
                "audios": [example.media.sound],
                "rejected_videos": [swapped.video] if swapped else [],
                "rejected_audios": [swapped.sound] if swapped else [],
                OWN: branch_own(example, branch=number),
            }
        )
    return rows


def _answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def _implicit_prompt(row: Row, place: str) -> Any:
    """What `chosen` and `rejected` have in common before their last message."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not (isinstance(chosen, list) and isinstance(rejected, list)) or chosen[:-1] != rejected[:-1]:
        raise RowError("bad_row", f"{place}: no field prompt, and chosen and rejected do not begin alike.")
    return chosen[:-1]


def fits(row: Row) -> bool:
    """Whether a row looks like this format."""
    return {"chosen", "rejected"} <= row.keys() and not {"video", "audio", "extra_info"} & row.keys()
