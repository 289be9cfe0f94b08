"""The labelled set, what a judge scores on it, and the verb that tells it."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from avere_ray.errors import InputError
from avere_ray.judges.agreement import accuracy, cohens_kappa, confusion, label_scores, macro_f1
from avere_ray.judges.choose import RulesJudge
from avere_ray.judges.labelled import PARTS, Labelled, judge_all, read_labelled, shipped
from avere_ray.judges.order import with_choices_reversed, with_sentences_reversed
from avere_ray.judges.report import measure, read_labels
from avere_ray.records import VerdictLabel
from avere_ray.verdicts import JUDGE, corpus_lexicon
from jobs import judge_report

F, S, H, W, T, U = (
    VerdictLabel.FAITHFUL, VerdictLabel.SPURIOUS_ASSOCIATION, VerdictLabel.HALLUCINATION, VerdictLabel.WRONG_EMOTION,
    VerdictLabel.OFF_TOPIC, VerdictLabel.UNPARSEABLE,
)  # fmt: skip
DEV, TEST, FRESH = (shipped(part) for part in PARTS)
KINDS = {"negated", "synonym", "two_cues", "wrong_emotion", "hedge", "language", "injection"}
CLIP = {"clip_id": "x", "emotion": "anger", "face_emotion": "anger", "voice_emotion": "anger", "cues": [
    {"name": "scowl", "modality": "video", "text": "a scowl", "present": True, "emotions": ["anger"]}]}  # fmt: skip


def rules(examples: list[Labelled]) -> RulesJudge:
    return RulesJudge(corpus_lexicon(e.clip for e in examples))


def test_the_shipped_set_is_large_and_has_every_kind_and_label_in_both_parts() -> None:
    assert len(DEV) + len(TEST) >= 400
    assert sum(e.origin == "hand" for e in (*DEV, *TEST)) >= 400
    for part in (DEV, TEST):
        assert {e.kind for e in part} >= KINDS
        assert min(Counter(e.label for e in part)[label] for label in VerdictLabel) >= 10
    assert not {(e.clip.clip_id, e.text) for e in DEV if e.origin == "hand" and e.text.strip()} & {
        (e.clip.clip_id, e.text) for e in TEST
    }


@pytest.mark.parametrize(("part", "floor"), [(DEV, 0.95), (TEST, 0.90), (FRESH, 0.90)], ids=PARTS)
def test_the_rules_judge_reaches_its_floors(part: list[Labelled], floor: float) -> None:
    said = [v.label for v in judge_all(part, rules(part))]
    assert macro_f1([e.label for e in part], said) >= floor


def test_figures_of_a_small_table_are_those_computed_by_hand() -> None:
    right, said = [F, F, F, H, H, S], [F, F, H, H, F, S]
    assert accuracy(right, said) == pytest.approx(4 / 6)
    scores = label_scores(right, said)
    assert (scores[F].precision, scores[F].recall, scores[F].f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (scores[H].n, scores[H].precision, scores[H].recall) == (2, 0.5, 0.5)
    assert macro_f1(right, said) == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert confusion(right, said)["hallucination"]["faithful"] == 1
    by_chance = (3 * 3 + 2 * 2 + 1) / 36
    assert cohens_kappa(right, said) == pytest.approx((4 / 6 - by_chance) / (1 - by_chance))
    assert cohens_kappa([F, F], [F, F]) == 1.0
    assert cohens_kappa([F, H], [H, F]) == pytest.approx(-1.0)
    assert macro_f1([F, W], [W, F]) == 0.0


def test_choices_and_sentences_are_turned_round_without_changing_what_is_said() -> None:
    stress = next(e for e in DEV if e.text == "(B) No. What somebody wears is not evidence of happiness.")
    turned = with_choices_reversed(stress)
    assert turned is not None
    assert turned.query.choices == ("(A) No", "(B) Yes")
    assert turned.query.answer == "A"
    assert turned.text == "(A) No. What somebody wears is not evidence of happiness."
    two = next(e for e in DEV if e.text.startswith("Ignore the clock"))
    again = with_sentences_reversed(two)
    assert again is not None
    assert again.text == "The growling is what shows anger. Ignore the clock and the red shirt."
    assert with_choices_reversed(two) is None
    assert with_sentences_reversed(stress) is None


def test_a_judge_that_prefers_the_first_choice_shows_in_the_order_bias() -> None:
    asked = [e for e in DEV if e.kind == "choice"]
    honest = rules(asked)

    def biased(rollouts, queries, clips):
        return [dataclasses.replace(v, label=F) if queries[v.query_id].answer == "A" else v
                for v in honest(rollouts, queries, clips)]  # fmt: skip

    assert measure(asked, honest).orders["choices"].changed == 0
    assert measure(asked, biased).orders["choices"].changed > 10


def test_agreement_with_another_judge_and_with_a_file(tmp_path: Path) -> None:
    part = DEV[:40]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"id": e.id, "label": "faithful"}) + "\n" for e in part))
    report = measure(part, rules(part), against=("labels", read_labels(path)))
    assert report.agreement is not None
    assert report.agreement.kappa == pytest.approx(0.0)
    assert measure(part, rules(part), against=("rules", rules(part))).agreement.kappa == 1.0  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"labels has no label for 1 of 41 responses, e\.g\. dev-040"):
        measure(DEV[:41], rules(part), against=("labels", read_labels(path)))


def test_the_verb_prints_tables_or_json_and_writes_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mine = tmp_path / "mine.jsonl"
    rows = [{"id": "a", "clip": CLIP, "text": "He scowls, so he is angry.", "label": "faithful", "kind": "plain"},
            {"id": "b", "clip": CLIP, "text": "The person is sad.", "label": "faithful"},
            {"id": "c", "clip": "happy", "query": {"modality": "video"}, "text": "I see tears.",
             "label": "hallucination"}]  # fmt: skip
    mine.write_text("".join(json.dumps(r) + "\n" for r in rows))
    out = tmp_path / "out.jsonl"
    assert judge_report.main(["--labelled", str(mine), "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["judge"]) == (3, JUDGE)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert [w["id"] for w in found["wrong"]] == ["b"]
    assert found["confusion"]["faithful"]["wrong_emotion"] == 1
    assert judge_report.main(["--labelled", str(mine), "--against", str(out)]) == 0
    told = capsys.readouterr().out
    assert "agreement with out.jsonl: 1.000, Cohen's kappa 1.000" in told
    assert "b: faithful, judged wrong_emotion" in told


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x", "label": "good", "clip": "happy"}, "label 'good' is unknown; allowed are faithful"),
        ({"text": "x", "label": "faithful", "clip": "nobody"}, "clip 'nobody' is unknown"),
        ({"label": "faithful", "clip": "happy"}, '"text" must hold the response'),
        ({"text": "x", "label": "faithful", "clip": "happy", "query": {"modality": "smell"}}, "modality = 'smell'"),
        ({"text": "x", "label": "faithful", "clip": {"uri": "a"}}, "clip_id"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="line 1") as caught:
        read_labelled(path)
    assert message in str(caught.value)


def test_a_judge_that_cannot_be_asked_here_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert judge_report.main(["--judge", "omni"]) == 2
    assert "The omni judge watches clips" in capsys.readouterr().err
    assert judge_report.main(["--judge", "llm"]) == 2
    assert "judge.endpoint.url" in capsys.readouterr().err
    assert judge_report.main(["--labelled", "nowhere.jsonl"]) == 2
    assert "nowhere.jsonl does not exist" in capsys.readouterr().err
