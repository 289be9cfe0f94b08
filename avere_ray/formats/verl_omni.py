"""VeRL-Omni's Parquet rows for offline DPO (`verl_omni/utils/dataset/offline_mllm_dpo_dataset.py`).

    prompt: [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "audio", "audio": "a.wav"},
                                          {"type": "text", "text": "..."}]}]
    chosen, rejected: text;  win_score, lose_score: float or null;  data_source, ability: text
    reward_model: {"style": "preference"};  extra_info: {"split", "index", "modality", ...}

Read besides: contents as text with <video> and <audio>, paths in `videos` and `audios`, `prompt` and `extra_info` as
JSON text. Its samplers group rows by `extra_info.modality` ("audio" or "video"; "video" is written for questions about
both), which names the media of a row and is not read as what the prompt asks about. One reject a row, no field for a
mismatched input; both travel in our own field, as JSON text in `extra_info.avere_ray`.
"""

import json
from typing import Any

from avere_ray.formats.example import (
    OWN,
    Example,
    branch_of,
    branch_own,
    changed_media,
    media_of,
    object_field,
    own_field,
    prompt_of,
    response_text,
)
from avere_ray.rows import Row


def read_row(row: Row, place: str, *, ignore_system: bool = False) -> Example:
    """One row.

    Raises:
        RowError: a field is missing or wrong.
    """
    text, inside = prompt_of(_messages(row.get("prompt")), "prompt", place, ignore_system=ignore_system)
    media = media_of(row, place, inside)
    own = own_field(object_field(row.get("extra_info"), "extra_info", place).get(OWN), place)
    swapped: Any = (own or {}).get("rejected_media")
    branch = branch_of(own)
    return Example(
        place=place,
        prompt=text,
        chosen=response_text(row.get("chosen"), "chosen", place),
        rejected=(response_text(row.get("rejected"), "rejected", place),),
        media=media,
        rejected_media=changed_media(media, swapped["video"], swapped["sound"], place) if swapped else None,
        own=own,
        branches=() if branch is None else (branch,),
    )


def write_rows(example: Example) -> list[Row]:
    """One row for each reject."""
    asked = (example.own or {}).get("modality") or example.modality
    swapped = example.rejected_media
    files = {"video": swapped.video, "sound": swapped.sound} if swapped else None
    rows: list[Row] = []
    for number, rejected in enumerate(example.rejected):
        own = branch_own(example, branch=number, rejected_media=files)
        rows.append(
            {
                "data_source": OWN,
                "prompt": [{"role": "user", "content": _parts(example)}],
                "chosen": example.chosen,
                "rejected": rejected,
                "win_score": None,
                "lose_score": None,
                "ability": f"{asked or 'audio_video'}_qa",
                "reward_model": {"style": "preference"},
                "extra_info": {
                    "split": "train",
                    "modality": "audio" if asked == "audio" else "video",
                    "question": example.prompt,
                    OWN: json.dumps(own, ensure_ascii=False),
                },
            }
        )
    return rows


def _messages(prompt: Any) -> Any:
    """Messages that stand there as JSON text; anything else as it is."""
    if isinstance(prompt, str) and prompt.lstrip().startswith("["):
        try:
            return json.loads(prompt)
        except ValueError:  # a question that begins with a bracket
            return prompt
    return prompt


def _parts(example: Example) -> list[dict[str, str | None]]:
    empty: dict[str, str | None] = {"video": None, "audio": None, "text": None}
    return [
        {"type": "video", **empty, "video": example.media.video},
        {"type": "audio", **empty, "audio": example.media.sound},
        {"type": "text", **empty, "text": example.prompt},
    ]


def fits(row: Row) -> bool:
    """Whether a row looks like this format."""
    return {"prompt", "chosen", "rejected", "extra_info"} <= row.keys()
