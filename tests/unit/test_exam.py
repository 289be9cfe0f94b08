"""Questions put in several ways: robustness modes, few-shot, likelihoods, and going on after an interruption."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avere_ray.config import EvaluationConfig
from avere_ray.errors import ConfigError, InputError, StageError
from avere_ray.evaluation.benchmark import Option
from avere_ray.evaluation.emorealm import EMOREALM
from avere_ray.evaluation.exam import Exam
from avere_ray.evaluation.few_shot import chooser, cue_examples, example_clips
from avere_ray.evaluation.grounding import right_logp, to_json, to_metrics
from avere_ray.evaluation.kept import Kept
from avere_ray.evaluation.showing import MODES, Showing, Showings
from avere_ray.fakes import make_rollout
from avere_ray.records import Clip, Cue, Query

EMOTIONS = ("anger", "happiness", "sadness")
YES_NO = ("(A) Yes", "(B) No")


def clip(i: int, split: str = "test", identity: str | None = None) -> Clip:
    emotion = EMOTIONS[i % 3]
    cues = [
        Cue(name=f"{modality}{k}", modality=modality, text=f"cue {k}", present=k < 2,
            emotions=(emotion,) if k != 1 else ())
        for modality in ("audio", "video") for k in range(5)
    ]  # fmt: skip
    return Clip(clip_id=f"{split}{i}", uri=f"{split}{i}.mp4", split=split, emotion=emotion, face_emotion=emotion,
                voice_emotion=emotion, cues=tuple(cues), identity=f"{split}-p{i % 5}" if identity is None else identity,
                sha256=f"{split}{i}" * 8)  # fmt: skip


CLIPS = [clip(i) for i in range(30)]
QUERIES = [
    Query(query_id=f"{c.clip_id}/{modality}", clip_id=c.clip_id, modality=modality,  # type: ignore[arg-type]
          task=f"reasoning_stress_{modality}", prompt="Is it so? (A) Yes (B) No", choices=YES_NO,
          answer="AB"[i % 2])
    for i, c in enumerate(CLIPS) for modality in ("audio", "video")
]  # fmt: skip


class Seeing:
    """Answers right whenever it sees the clip's own video, hears nothing, and says Yes else."""

    adapter_version = 0

    def __init__(self, *, dies_after: int | None = None, scores_options: bool = True) -> None:
        self.asked: list[tuple[str, Showing]] = []
        self.scored: list[str] = []
        self.dies_after, self.scores_options = dies_after, scores_options

    def sees(self, query: Query, showing: Showing) -> bool:
        return not showing.words_only and (showing.swap is None or showing.swap.video_clip_id == query.clip_id)

    def answer(
        self, queries: Sequence[Query], showings: Sequence[Showing], *, max_tokens: int, kept: Kept, progress: Any
    ) -> None:
        for query, showing in zip(queries, showings, strict=True):
            if self.dies_after is not None and len(self.asked) == self.dies_after:
                raise StageError("gone")
            self.asked.append((query.query_id, showing))
            kept.add_answers([make_rollout(query, 0, f"({query.answer if self.sees(query, showing) else 'A'})")])

    def score_options(
        self, queries: Sequence[Query], showings: Sequence[Showing], options: Sequence[Mapping[str, Option]],
        *, kept: Kept, progress: Any,
    ) -> None:  # fmt: skip
        for query, showing, row in zip(queries, showings, options, strict=True):
            self.scored.append(query.query_id)
            good = query.answer if self.sees(query, showing) else "A"
            kept.add_logps({query.query_id: {name: -0.1 if name == good else -2.5 for name in row}})


def exam(folder: Path, model: Seeing, *, k: int = 0, **settings: Any) -> Exam:
    pool = cue_examples(example_clips([clip(i, "train") for i in range(20)], CLIPS), 0)
    return Exam(
        EMOREALM,
        QUERIES,
        model,
        EvaluationConfig(few_shot=k, **settings),
        showings=Showings(CLIPS),
        examples=chooser(pool, k, 0),
        folder=folder,
        show=lambda mode: contextlib.nullcontext(lambda done, total: None),
    )


def test_what_a_deaf_model_loses_without_each_medium(tmp_path: Path) -> None:
    made = exam(tmp_path, Seeing(), modes=MODES)
    sittings = made.sittings()
    found = {(loss.mode, loss.asked): loss for loss in made.losses(sittings)}
    for mode in ("muted", "swapped_audio"):
        assert found[mode, "all"].drop.value == 0.0
        assert found[mode, "audio"].shift is not None and found[mode, "audio"].shift.value == 0.0
    for mode in ("blank_video", "swapped_video", "text_only"):
        loss = found[mode, "video"]
        assert (loss.n, loss.plain, loss.changed, loss.drop.value) == (30, 100.0, 50.0, 50.0)
        assert loss.drop.interval.low < 50 < loss.drop.interval.high
        assert loss.shift is not None and loss.shift.value == pytest.approx(2.4 / 2)
    report = to_json(list(found.values()))
    assert set(report) == {"audio", "video", "audio and video"}
    assert report["video"]["blank_video"]["all"]["drop"]["n"] == 60
    assert json.loads(json.dumps(report)) == report
    assert to_metrics([found["text_only", "all"]]) == {
        "grounding_text_only_all_drop": 50.0, "grounding_text_only_all_shift": pytest.approx(1.2),
    }  # fmt: skip


class Refusing(Seeing):
    """Refuses some questions in every mode but as they are."""

    def answer(self, queries: Any, showings: Any, *, max_tokens: int, kept: Kept, progress: Any) -> None:
        refused = [q.query_id for q in queries if kept.path.stem != "emorealm" and q.query_id < "test12"]
        for name in refused:
            kept.refuse(name, "content_filter")
        put = [(q, s) for q, s in zip(queries, showings, strict=True) if q.query_id not in refused]
        super().answer(*zip(*put, strict=True), max_tokens=max_tokens, kept=kept, progress=progress)


def test_a_refused_question_is_left_out_of_its_mode_and_not_wrong(tmp_path: Path) -> None:
    made = exam(tmp_path, Refusing(scores_options=False), modes=("muted",))
    sittings = made.sittings()
    [loss] = [loss for loss in made.losses(sittings) if loss.asked == "all"]
    assert (loss.n, loss.plain, loss.changed) == (60 - len(sittings[1].kept.refused), 100.0, 100.0)
    assert loss.n < 60


def test_without_likelihoods_there_is_a_drop_and_no_shift(tmp_path: Path) -> None:
    model = Seeing(scores_options=False)
    made = exam(tmp_path, model, modes=("text_only",))
    [loss] = [loss for loss in made.losses(made.sittings()) if loss.asked == "all"]
    assert loss.drop.value == 50.0 and loss.shift is None and model.scored == []
    assert to_json([loss])["audio and video"]["text_only"]["all"]["shift_nats"] is None


def test_a_likelihood_is_that_of_the_right_option_among_the_options() -> None:
    assert right_logp({"A": -5.0, "B": -5.0}, "A") == pytest.approx(-math.log(2))
    assert right_logp({"A": -700.0, "B": -702.0}, "B") == pytest.approx(-2 - math.log1p(math.exp(-2)))


@pytest.mark.parametrize("mode", ["swapped_audio", "swapped_video"])
def test_a_swapped_medium_is_another_persons_with_another_emotion(mode: str) -> None:
    by_id = {c.clip_id: c for c in CLIPS}
    for query in QUERIES:
        showing = Showings(CLIPS).of(query, mode)
        assert showing is not None and showing.swap is not None
        swap, own = showing.swap, by_id[query.clip_id]
        kept, taken = swap.video_clip_id, by_id[swap.audio_clip_id]
        if mode == "swapped_video":
            kept, taken = swap.audio_clip_id, by_id[swap.video_clip_id]
        assert kept == own.clip_id
        assert taken.identity != own.identity and taken.emotion != own.emotion
        assert showing == Showings(list(reversed(CLIPS))).of(query, mode)


def test_questions_without_a_partner_are_left_out_of_the_mode_alone(tmp_path: Path) -> None:
    one = [replace(c, identity="same") for c in CLIPS]
    assert Showings(one).of(QUERIES[0], "swapped_audio") is None
    assert Showings(one).of(QUERIES[0], "muted") is not None
    with pytest.raises(ConfigError, match="unknown robustness mode 'deaf'"):
        Showings(one).of(QUERIES[0], "deaf")


def test_examples_are_seeded_of_the_same_task_and_never_of_a_held_out_person(tmp_path: Path) -> None:
    model = Seeing()
    exam(tmp_path, model, k=3).sittings()
    tasks = {query.query_id: query.task for query in QUERIES}
    for name, showing in model.asked:
        assert len({e.query.clip_id for e in showing.examples}) == 3
        assert all(e.query.task == tasks[name] and e.answer.startswith("(") for e in showing.examples)
        assert all(e.query.clip_id.startswith("train") for e in showing.examples)
    again, other = Seeing(), Seeing()
    exam(tmp_path / "again", again, k=3).sittings()
    assert again.asked == model.asked
    pool = cue_examples([clip(i, "train") for i in range(20)], 0)
    assert chooser(pool, 3, 1)(QUERIES[0]) != chooser(pool, 3, 0)(QUERIES[0]) == again.asked[0][1].examples
    assert other.asked == []


def test_clips_of_held_out_people_files_and_splits_give_no_examples() -> None:
    given = [clip(1, "train"), clip(2, "train", identity="test-p0"), clip(3, "train", identity=""),
             replace(clip(4, "train"), sha256=CLIPS[0].sha256), clip(31, "test", identity="new")]  # fmt: skip
    assert [c.clip_id for c in example_clips(given, CLIPS)] == ["train1"]
    with pytest.raises(InputError, match=r"few-shot.*nobody knows who is in 1 of these"):
        example_clips(given, [*CLIPS, clip(7, identity="")])
    with pytest.raises(InputError, match="no few-shot examples"):
        example_clips(given[1:], CLIPS)
    with pytest.raises(InputError, match="needs 4 few-shot examples, and there are 1"):
        chooser(cue_examples(given[:1], 0), 4, 0)(QUERIES[0])


def test_an_interrupted_exam_asks_for_the_rest_only(tmp_path: Path) -> None:
    first, second = Seeing(dies_after=17), Seeing()
    with pytest.raises(StageError, match="gone"):
        exam(tmp_path, first).sittings()
    with (tmp_path / "emorealm.jsonl").open("a") as file:
        file.write('{"kind": "answer", "rollout_id": "cut o')
    [sitting] = exam(tmp_path, second).sittings()
    assert [name for name, _ in first.asked + second.asked] == [q.query_id for q in QUERIES]
    assert [r.query_id for r in sitting.answers] == [q.query_id for q in QUERIES]
    assert len(Kept(tmp_path / "emorealm.jsonl").answers) == 60


def test_the_likeliest_option_is_the_answer(tmp_path: Path) -> None:
    model = Seeing()
    [sitting] = exam(tmp_path, model, decoding="likelihood").sittings()
    assert model.asked == [] and len(model.scored) == 60
    assert [r.text for r in sitting.answers[:4]] == ["(A) Yes", "(A) Yes", "(B) No", "(B) No"]
    assert EMOREALM.score(QUERIES, {r.query_id: r.text for r in sitting.answers})["average_accuracy"] == 100.0
    with pytest.raises(StageError, match="gives no likelihoods"):
        exam(tmp_path / "x", Seeing(scores_options=False), decoding="likelihood").sittings()


def test_likelihoods_feed_calibration(tmp_path: Path) -> None:
    from avere_ray.evaluation.calibration import calibration
    from avere_ray.evaluation.scorer import Item

    [sitting] = exam(tmp_path, Seeing(), likelihoods=True).sittings()
    items = [Item(sample_id=q.query_id, gold=q.answer, choices=YES_NO) for q in QUERIES]
    measured = calibration(items, sitting.logps)
    assert measured is not None and measured.n == 60
    assert measured.bins[0].confidence == pytest.approx(1 / (1 + np.exp(-2.4)))
