"""The fine-tuned setting: which questions are trained on, what is preferred, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avere_ray.config import RunConfig
from avere_ray.errors import InputError, StageError
from avere_ray.evaluation import BENCHMARKS
from avere_ray.evaluation.answers import parse_answer
from avere_ray.evaluation.few_shot import cue_examples
from avere_ray.evaluation.fine_tune import answer_pairs
from avere_ray.evaluation.showing import Example
from avere_ray.prompts import all_queries
from avere_ray.records import Clip, PreferencePair, Query, RejectKind
from avere_ray.stages import StageFolder, StageManifest, read_drops, read_records
from avere_ray.synthetic.scene import clip_of, sample_scene
from jobs import answer_pairs as stage
from jobs.layout import stage_path

TRAIN = [clip_of(sample_scene(f"train{i}", "train", 0, bias=0.9, mismatch=0.3), f"train{i}.mp4") for i in range(6)]
TEST = [clip_of(sample_scene(f"test{i}", "test", 0, bias=0.0, mismatch=0.5), f"test{i}.mp4") for i in range(3)]


def config(folder: Path, *, benchmarks: tuple[str, ...] = ("emorealm",), **settings: Any) -> RunConfig:
    """A run with a question of each task about every test clip."""
    rows = [
        {"id": q.query_id, "video": c.uri, "task": q.task, "question": "?", "choices": q.choices, "answer": q.answer}
        for c in TEST
        for q in all_queries(c, 0)
        if q.choices
    ]
    (folder / "questions.json").write_text(json.dumps(rows))
    values = {
        "run_dir": folder / "run",
        "rounds": 1,
        "loss": {"kind": "dpo"},
        "data": {"clips": folder, "benchmark": folder / "questions.json", "pairs": {"source": "answers"}},
        "evaluation": {"benchmarks": benchmarks},
    }
    return RunConfig.model_validate({**values, **settings})


def decoded(cfg: RunConfig) -> StageManifest:
    folder = StageFolder(stage_path(cfg, "decoded"), stage="decode", key="k")
    folder.begin()
    return folder.finish(inputs=1, used=1)


def made(cfg: RunConfig, clips: list[Clip]) -> tuple[StageManifest, list[PreferencePair]]:
    manifest = stage.make_pairs(cfg, decoded(cfg), clips)
    return manifest, read_records(stage_path(cfg, "pairs", 0) / "pairs.parquet", PreferencePair)


def test_the_right_answer_is_preferred_to_every_other_option() -> None:
    benchmark, examples = BENCHMARKS["emorealm"], cue_examples(TRAIN, 0)
    pairs, drops = answer_pairs(benchmark, examples)
    queries = {e.query.query_id: e.query for group in examples.values() for e in group}
    assert not drops and len(pairs) == len(queries) > 6 * 4
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    for pair in pairs:
        query = queries[pair.query_id]
        assert pair.chosen in query.choices and pair.chosen.startswith(f"({query.answer})")
        assert parse_answer(pair.chosen, query.choices) == query.answer
        assert [r.text for r in pair.rejects] == [c for c in query.choices if c != pair.chosen]
        kind = RejectKind.SPURIOUS if query.subtype == "spurious" else RejectKind.HALLUCINATED
        assert {r.kind for r in pair.rejects} == {kind}
        assert (pair.modality, pair.prompt, pair.swap) == (query.modality, query.prompt, None)
    assert {len(pair.rejects) for pair in pairs} == {1, 3}


def test_one_reject_of_each_pair_is_trained_on_where_that_is_set(tmp_path: Path) -> None:
    both, all_pairs = made(config(tmp_path), [*TRAIN, *TEST])
    one = config(
        tmp_path, data={**config(tmp_path).resolved()["data"], "pairs": {"source": "answers", "one_reject": True}}
    )
    manifest, pairs = made(one, [*TRAIN, *TEST])
    assert {len(pair.rejects) for pair in pairs} == {1} < {len(pair.rejects) for pair in all_pairs}
    assert [pair.pair_id for pair in pairs] == [pair.pair_id for pair in all_pairs]
    assert manifest.key != both.key


def test_a_class_is_preferred_to_every_other_class() -> None:
    benchmark = BENCHMARKS["ravdess"]
    clips = [replace(TRAIN[0], emotion="anger"), replace(TRAIN[1], emotion="")]
    [pair], drops = answer_pairs(benchmark, benchmark.examples(clips, 0))
    assert (pair.chosen, pair.clip_id, drops) == ("anger", "train0", [])
    assert sorted([pair.chosen, *(r.text for r in pair.rejects)]) == sorted(benchmark.options(_query()))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"choices": ()}, "open_question"),
        ({"answer": "C"}, "no_right_answer"),
        ({"choices": ("(A) Yes",)}, "no_other_answer"),
    ],
)
def test_a_question_that_makes_no_pair_is_a_drop_with_its_reason(query: dict[str, Any], reason: str) -> None:
    asked = replace(_query(), **query)
    pairs, [drop] = answer_pairs(BENCHMARKS["emorealm"], {"t": [Example(query=asked, answer="x")]})
    assert (pairs, drop.sample_id, drop.stage, drop.reason) == ([], "q", "pairs", reason)
    assert "question q" in drop.message


def _query() -> Query:
    return Query(query_id="q", clip_id="c", modality="video", task="t", prompt="?", choices=("(A) Yes", "(B) No"),
                 answer="A")  # fmt: skip


def test_no_pair_shows_a_held_out_person_and_everything_is_counted(tmp_path: Path) -> None:
    known = TEST[0].identity
    clips = [replace(TRAIN[0], identity=known), replace(TRAIN[1], identity=""), replace(TRAIN[2], split="validation"),
             *TRAIN[3:], *TEST]  # fmt: skip
    cfg = config(tmp_path)
    manifest, pairs = made(cfg, clips)
    assert {pair.clip_id for pair in pairs} == {"train3", "train4", "train5"}
    assert manifest.inputs == manifest.used + manifest.dropped == len(pairs)
    assert manifest.summary["training_clips"] == 5
    assert manifest.summary["clips_of_held_out_or_unknown_persons"] == 2
    queries = read_records(stage_path(cfg, "pairs", 0) / "queries.parquet", Query)
    assert [q.query_id for q in queries] == [p.query_id for p in pairs]
    assert stage.make_pairs(cfg, decoded(cfg), clips) == manifest


def test_another_seed_other_held_out_persons_or_clips_make_the_stage_anew(tmp_path: Path) -> None:
    clips = [*TRAIN, *TEST]
    keys = {made(config(tmp_path, seed=seed), clips)[0].key for seed in (0, 1)}
    keys.add(made(config(tmp_path), clips[1:])[0].key)
    keys.add(made(config(tmp_path), [*TRAIN, replace(TEST[0], identity=TRAIN[1].identity), *TEST[1:]])[0].key)
    assert len(keys) == 4


def test_a_question_of_two_benchmarks_counts_once(tmp_path: Path) -> None:
    from avere_ray.ledger import Ledger

    ledger = Ledger("pairs")
    pairs, queries, inputs = stage._pairs(config(tmp_path, benchmarks=("emorealm", "world")), TRAIN, ledger)
    assert inputs == len(pairs) + len(ledger.drops)
    assert len(pairs) == len(queries) == len(ledger.drops)
    assert ledger.counts() == {"asked_twice": len(pairs)}


def test_unknown_persons_and_clips_without_annotations_say_what_to_do(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with pytest.raises(InputError, match=r"training answers.*nobody knows who.*data\.pairs\.source to rollouts"):
        made(cfg, [*TRAIN, replace(TEST[0], identity=""), *TEST[1:]])
    with pytest.raises(InputError, match=r"no training answers"):
        made(cfg, [replace(c, identity="") for c in TRAIN] + TEST)
    bare = [replace(c, cues=(), emotion="", face_emotion="", voice_emotion="") for c in TRAIN]
    with pytest.raises(StageError, match=r"none of the 0 questions about 6 training clips"):
        made(cfg, [*bare, *TEST])
    assert read_drops(stage_path(cfg, "pairs", 0)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 2}, "Set rounds to 1"),
        ({"loss": {"kind": "avem_dpo"}}, "Set loss.kind to dpo"),
        ({"data": {"pairs": {"source": "answers", "path": "x.json"}}}, "data.pairs.path is x.json"),
        ({"data": {"pairs": {"source": "answers"}, "queries": "q.parquet"}}, "data.queries is for rollouts"),
        ({"evaluation": {"benchmarks": ["cmm", "emer"]}}, "cmm, emer ask nothing"),
    ],
)
def test_settings_that_contradict_answers_are_refused(changes: dict[str, Any], words: str) -> None:
    values = {"rounds": 1, "loss": {"kind": "dpo"}, "data": {"pairs": {"source": "answers"}}}
    assert RunConfig.model_validate(values).data.pairs.source == "answers"
    with pytest.raises(ValueError, match=words):
        RunConfig.model_validate({**values, **changes})
