"""Responses of the demo's policy and the verdicts its released figures rest on: new rules must not move them."""

import json
from pathlib import Path

from avere_ray.fakes import make_rollout
from avere_ray.records import Clip, Cue, Query
from avere_ray.synthetic.world import CUES
from avere_ray.verdicts import corpus_lexicon, judge_by_rules

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "demo_verdicts.jsonl").read_text().splitlines()]


def test_the_demos_verdicts_stay_the_same() -> None:
    moved = [row["text"] for row in ROWS if judged(row) != (row["label"], row["confidence"])]
    assert len(ROWS) > 300
    assert not moved


def judged(row: dict) -> tuple[str, float]:
    cues = tuple(Cue(name=k.name, modality=k.modality, text=k.text, present=k.name in row["present"],
                     emotions=(k.emotion,) if k.emotion else ()) for k in CUES)  # fmt: skip
    same = row["face"] == row["voice"]
    clip = Clip(clip_id="c", uri="c.mp4", emotion=row["face"] if same else "", face_emotion=row["face"],
                voice_emotion=row["voice"], cues=cues)  # fmt: skip
    query = Query(query_id="q", clip_id="c", modality=row["modality"], task=row["task"], prompt="?",
                  choices=tuple(row["choices"]), answer=row["answer"], subtype=row["subtype"],
                  about_cue=row["about_cue"])  # fmt: skip
    verdict = judge_by_rules(make_rollout(query, 0, row["text"]), query, clip, corpus_lexicon([clip]))
    return verdict.label.value, verdict.confidence
