"""Annotated clips, questions about them, and the pair that judged responses give."""

import dataclasses
from collections.abc import Mapping, Sequence

from avere_ray.config import PreferenceConfig
from avere_ray.fakes import make_rollout
from avere_ray.preferences import build_pairs
from avere_ray.records import (
    Clip,
    Cue,
    Drop,
    ModalitySwap,
    PreferencePair,
    Query,
    RejectKind,
    Rollout,
    Verdict,
)
from avere_ray.verdicts import judge_by_rules

RULES = PreferenceConfig()
UNWRITTEN = PreferenceConfig(written_rejects=False)
SPURIOUS, HALLUCINATED = RejectKind.SPURIOUS, RejectKind.HALLUCINATED


def cue(name: str, text: str, emotion: str, present: bool, modality: str = "video") -> Cue:
    return Cue(name=name, modality=modality, text=text, present=present,  # type: ignore[arg-type]
               emotions=(emotion,) if emotion else ())  # fmt: skip


CLIP = Clip(
    clip_id="c",
    uri="c.mp4",
    emotion="anger",
    face_emotion="anger",
    voice_emotion="anger",
    cues=(
        cue("lowered_brows", "lowered brows", "anger", True),
        cue("clenched_fists", "clenched fists", "anger", False),
        cue("tears", "tears", "sadness", False),
        cue("wide_smile", "a wide smile", "happiness", False),
        cue("red_shirt", "a red shirt", "", True),
        cue("loud_harsh_voice", "a loud harsh voice", "anger", True, "audio"),
        cue("growling", "growling", "anger", False, "audio"),
        cue("sobbing", "sobbing", "sadness", False, "audio"),
        cue("slow_low_voice", "a slow low voice", "sadness", False, "audio"),
        cue("laughter", "laughter", "happiness", False, "audio"),
        cue("piano", "piano music", "", True, "audio"),
    ),
)
MIXED = dataclasses.replace(
    CLIP,
    emotion="",
    voice_emotion="sadness",
    cues=tuple(
        dataclasses.replace(c, present={"loud_harsh_voice": False, "sobbing": True}.get(c.name, c.present))
        for c in CLIP.cues
    ),
)
SAD = dataclasses.replace(
    CLIP,
    emotion="sadness",
    face_emotion="sadness",
    voice_emotion="sadness",
    cues=tuple(dataclasses.replace(c, present=c.name in ("tears", "sobbing", "piano")) for c in CLIP.cues),
)
OPEN = Query(query_id="q", clip_id="c", modality="audio_video", task="describe", prompt="?",
             reference="The person is angry. I see lowered brows and I hear a loud harsh voice.")  # fmt: skip
YES_NO = ("(A) Yes", "(B) No")


def stress(about: str, gold: str, choices: tuple[str, ...] = YES_NO) -> Query:
    subtype = {"red_shirt": "spurious", "clenched_fists": "hallucination"}.get(about, "no_hallucination")
    return Query(query_id="q", clip_id="c", modality="video", task="reasoning_stress_video", prompt="?",
                 choices=choices, answer=gold, about_cue=about, subtype=subtype)  # fmt: skip


def sampled(query: Query, texts: Sequence[str], clip: Clip = CLIP) -> tuple[list[Rollout], dict[str, Verdict]]:
    rollouts = [make_rollout(query, i, text) for i, text in enumerate(texts)]
    return rollouts, {r.rollout_id: judge_by_rules(r, query, clip) for r in rollouts}


def pair_of(query: Query, texts: Sequence[str], rules: PreferenceConfig = RULES, clip: Clip = CLIP, seed: int = 0,
            swaps: Mapping[str, ModalitySwap | None] | None = None,
            partner: Clip = SAD) -> PreferencePair | Drop:  # fmt: skip
    rollouts, verdicts = sampled(query, texts, clip)
    clips = {"c": clip, "x": dataclasses.replace(partner, clip_id="x")}
    pairs, drops = build_pairs([query], {query.query_id: rollouts}, verdicts, clips, swaps or {}, rules, seed)
    assert len(pairs) + len(drops) == 1
    return (pairs or drops)[0]  # type: ignore[return-value]


def pair(query: Query, texts: Sequence[str], rules: PreferenceConfig = RULES, clip: Clip = CLIP,
         seed: int = 0) -> PreferencePair:  # fmt: skip
    made = pair_of(query, texts, rules, clip, seed)
    assert isinstance(made, PreferencePair), made
    return made


def rejects(made: PreferencePair) -> dict[RejectKind, tuple[str, str]]:
    return {r.kind: (r.text, r.source) for r in made.rejects}
