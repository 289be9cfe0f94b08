"""The judge and swap workers as plain objects: order, lexicon, errors that name what is missing."""

import pickle

import pytest

from actors.judge import JudgeWorker
from actors.modality_swap import ModalitySwapWorker
from avere_ray.errors import InputError, StageError
from avere_ray.fakes import make_rollout
from avere_ray.records import Clip, Cue, Query, VerdictLabel
from avere_ray.verdicts import corpus_lexicon


def clip(clip_id: str, emotion: str, shirt: str) -> Clip:
    cues = (Cue(name="lowered_brows", modality="video", text="lowered brows", present=True, emotions=(emotion,)),
            Cue(name=f"{shirt}_shirt", modality="video", text=f"a {shirt} shirt", present=True))  # fmt: skip
    return Clip(clip_id=clip_id, uri="u", emotion=emotion, face_emotion=emotion, voice_emotion=emotion, cues=cues)


CLIPS = {c.clip_id: c for c in (clip("a", "anger", "red"), clip("b", "sadness", "blue"))}
QUERIES = {q: Query(query_id=q, clip_id=c, modality="video", task="describe", prompt="?")
           for q, c in (("qa", "a"), ("qb", "b"))}  # fmt: skip


def test_one_verdict_per_rollout_in_order_with_the_corpus_lexicon() -> None:
    worker = JudgeWorker(lexicon=corpus_lexicon(CLIPS.values()))
    texts = (("qb", "I see a red shirt."), ("qa", "I see a red shirt."), ("qb", "I see lowered brows."))
    rollouts = [make_rollout(QUERIES[q], i, text) for i, (q, text) in enumerate(texts)]
    verdicts = worker.judge(rollouts, QUERIES, CLIPS)
    assert [v.rollout_id for v in verdicts] == ["qb#0", "qa#1", "qb#2"]
    assert [v.label for v in verdicts] == [
        VerdictLabel.HALLUCINATION,
        VerdictLabel.SPURIOUS_ASSOCIATION,
        VerdictLabel.FAITHFUL,
    ]
    assert pickle.loads(pickle.dumps(worker)).judge(rollouts, QUERIES, CLIPS) == verdicts


def test_a_rollout_of_an_unknown_query_is_refused() -> None:
    rollout = make_rollout(QUERIES["qa"], 0, "x")
    with pytest.raises(StageError, match=r"rollout qa#0 answers query qa about clip a"):
        JudgeWorker().judge([rollout], {}, CLIPS)


def test_swaps_in_order_and_none_without_partner() -> None:
    alone = Clip(clip_id="z", uri="u", face_emotion="", split="train")
    worker = ModalitySwapWorker([*CLIPS.values(), alone], strategy="other_emotion", seed=0)
    asked = [*QUERIES.values(), Query(query_id="qz", clip_id="z", modality="video", task="t", prompt="?")]
    swaps = worker.swap(asked)
    assert [s.video_clip_id if s else None for s in swaps] == ["b", "a", None]
    assert worker.swap(asked[::-1]) == swaps[::-1]


def test_a_query_about_an_unknown_clip_is_refused() -> None:
    worker = ModalitySwapWorker(CLIPS.values(), strategy="random_clip", seed=0)
    with pytest.raises(InputError, match="query q is about clip x, which is not in the corpus"):
        worker.swap([Query(query_id="q", clip_id="x", modality="video", task="t", prompt="?")])
