"""Rows of preference data as other systems write them, put into files and read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avere_ray.formats import PreferenceData, ReadOptions, read_data
from avere_ray.ledger import Ledger

ASKED = "How does the facial expression show anger?"
AVERE = {
    "prompt": f"<video>\n<audio>\n{ASKED}", "chosen": "Lowered brows.", "rejected": "Tears.",
    "rejected_2": "The brown jacket.", "video": "clips_24fps/1.mp4", "audio": "clips_16khz/1.wav",
    "video_l": "clips_24fps/2.mp4", "audio_l": "clips_16khz/1.wav",
}  # fmt: skip
TRL = {
    "prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "audio"}, {"type": "text", "text": ASKED}]}],
    "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "Lowered brows."}]}],
    "rejected": [{"role": "assistant", "content": "Tears."}],
    "videos": ["clips_24fps/1.mp4"], "audios": ["clips_16khz/1.wav"],
}  # fmt: skip
IMPLICIT = {
    "chosen": [{"role": "user", "content": f"<video>{ASKED}"}, {"role": "assistant", "content": "Lowered brows."}],
    "rejected": [{"role": "user", "content": f"<video>{ASKED}"}, {"role": "assistant", "content": "Tears."}],
    "videos": ["1.mp4"],
}
SWIFT = {
    "messages": [{"role": "user", "content": f"<video><audio>{ASKED}"},
                 {"role": "assistant", "content": "Lowered brows."}],
    "rejected_response": "Tears.", "videos": ["1.mp4"], "audios": ["1.wav"], "rejected_videos": ["2.mp4"],
}  # fmt: skip
VERL = {
    "data_source": "omni", "ability": "video_qa", "reward_model": {"style": "preference"}, "win_score": 8.0,
    "lose_score": 3.0, "chosen": "Lowered brows.", "rejected": "Tears.", "extra_info": {"split": "train", "index": 0},
    "prompt": [{"role": "user", "content": [{"type": "video", "video": "1.mp4", "text": None},
                                            {"type": "text", "text": ASKED, "video": None}]}],
}  # fmt: skip


def read(path: Path, form: str = "", **options: Any) -> tuple[PreferenceData, Ledger]:
    ledger = Ledger("read")
    return read_data(path, ReadOptions(**options), ledger, form=form), ledger


def put(path: Path, *rows: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        lines = [json.dumps(r, ensure_ascii=False) for r in rows]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    return path
