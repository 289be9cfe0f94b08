"""Each benchmark from files as they are published, with figures worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from avere_ray.errors import ConfigError, InputError
from avere_ray.evaluation import SCORERS
from avere_ray.evaluation.emer import CRITERIA, parse_judgement
from avere_ray.evaluation.predictions import read_predictions
from avere_ray.evaluation.scorer import ReadOptions, Scores, check_options, score_files

NO_OPTIONS = ReadOptions()


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def predictions(tmp_path: Path, texts: dict[str, str], suffix: str = ".txt") -> Path:
    for name, text in texts.items():
        written(tmp_path / "predictions" / f"{name}{suffix}", text)
    return tmp_path / "predictions"


def scored(name: str, annotations: Path, folder: Path, *, legacy: bool = False, **options: Any) -> Scores:
    scorer = SCORERS[name]
    found = scorer.read(annotations, ReadOptions(**options))
    return score_files(scorer, found, scorer.responses(folder), legacy=legacy)


def values(scores: Scores, *names: str) -> list[float]:
    return [round(scores.figures[name].value, 6) for name in names]


# DFEW -----------------------------------------------------------------------------------------------------------------

DFEW_CSV = "video_name,label\n1,1\n2,1\n3,2\n4,4\n5,4\n6,9\n"
DFEW_SAID = {"1": "Happy.", "2": "not happy, just calm", "3": "sad", "4": "angry", "99": "fear"}


def test_dfew_strict(tmp_path: Path) -> None:
    found = scored("dfew", written(tmp_path / "set_1.csv", DFEW_CSV), predictions(tmp_path, DFEW_SAID))
    # happiness 1 of 2, sadness 1 of 1, anger 1 of 2 (one missing)
    assert values(found, "war", "uar", "happiness_recall") == [60.0, pytest.approx(200 / 3, abs=1e-5), 50.0]
    assert values(found, "macro_f1") == [pytest.approx((200 / 3 + 100 + 200 / 3) / 3, abs=1e-5)]
    assert (found.n, found.missing, found.unparsable, found.unused) == (5, ("5",), (), 1)
    assert found.left_out == {"not one of the seven classes": 1}
    assert found.confusion["dfew"]["happiness"] == {"happiness": 1, "sadness": 0, "neutral": 1, "anger": 0,
                                                    "surprise": 0, "disgust": 0, "fear": 0, "other": 0}  # fmt: skip
    assert found.confusion["dfew"]["anger"]["other"] == 1
    assert found.figures["war"].interval.low < 60 < found.figures["war"].interval.high


def test_dfew_released(tmp_path: Path) -> None:
    found = scored("dfew", written(tmp_path / "set_1.csv", DFEW_CSV), predictions(tmp_path, DFEW_SAID), legacy=True)
    # "sad" and "angry" are in no list, so they become happiness; "not" drops the sentence, which is then kept whole;
    # the fifth is skipped. Gold happiness x2 right, sadness and anger wrong.
    assert values(found, "overall_accuracy", "unweighted_avg_recall", "weighted_avg_recall") == [
        0.5, pytest.approx(1 / 3, abs=1e-6), 0.5]  # fmt: skip
    assert values(found, "overall_f1") == [pytest.approx((2 * 2 / 6) / 3, abs=1e-6)]
    assert (found.scored, found.missing) == (4, ("5",))


def test_dfew_folds_are_found_in_their_folder(tmp_path: Path) -> None:
    written(tmp_path / "a" / "dfew_annotation" / "test(single-labeled)" / "set_3.csv", DFEW_CSV)
    assert len(SCORERS["dfew"].read(tmp_path / "a", ReadOptions(fold=3)).items) == 5
    with pytest.raises(InputError, match=r"no set_1.csv"):
        SCORERS["dfew"].read(tmp_path / "a", NO_OPTIONS)
    with pytest.raises(ConfigError, match="folds 1 to 5"):
        SCORERS["dfew"].read(tmp_path / "a", ReadOptions(fold=6))
    with pytest.raises(ConfigError, match="does not fit the file"):
        SCORERS["dfew"].read(written(tmp_path / "set_1.csv", DFEW_CSV), ReadOptions(fold=2))


# RAVDESS, MER2023 -----------------------------------------------------------------------------------------------------

RAVDESS_NAMES = ["01-01-05-01-01-01-01", "01-01-02-01-01-01-01", "01-02-03-01-01-01-02", "02-01-05-01-01-01-01",
                 "01-01-08-01-02-01-09"]  # fmt: skip


def test_ravdess_speech_song_and_what_is_left_out(tmp_path: Path) -> None:
    for name in RAVDESS_NAMES:
        written(tmp_path / "clips" / "Actor_01" / f"{name}.mp4", "")
    read = SCORERS["ravdess"].read
    speech = read(tmp_path / "clips", NO_OPTIONS)
    assert [(i.sample_id, i.gold) for i in speech.items] == [
        (RAVDESS_NAMES[0], "anger"),
        (RAVDESS_NAMES[4], "surprise"),
    ]
    assert speech.left_out == {"calm": 1, "not speech": 1, "not the full audio-visual file": 1}
    assert [i.gold for i in read(tmp_path / "clips", ReadOptions(channel="song")).items] == ["happiness"]
    names = written(tmp_path / "names.csv", "file\n" + "\n".join(f"Actor_01/{n}.mp4" for n in RAVDESS_NAMES))
    assert len(read(names, ReadOptions(channel="both")).items) == 3
    with pytest.raises(ConfigError, match="speech, song, both"):
        read(names, ReadOptions(channel="opera"))
    with pytest.raises(InputError, match=r"line 2: 'x.mp4' is no RAVDESS name"):
        read(written(tmp_path / "bad.txt", f"{RAVDESS_NAMES[0]}\nx.mp4\n"), NO_OPTIONS)


def test_ravdess_scores(tmp_path: Path) -> None:
    names = written(tmp_path / "names.txt", "\n".join(RAVDESS_NAMES))
    folder = predictions(tmp_path, {RAVDESS_NAMES[0]: "Angry", RAVDESS_NAMES[4]: "astonishment"})
    assert values(scored("ravdess", names, folder), "war", "uar") == [100.0, 100.0]
    released = scored("ravdess", names, folder, legacy=True)
    assert values(released, "weighted_avg_recall") == [0.5]


def test_mer2023_weighted_f1_and_worried_left_out(tmp_path: Path) -> None:
    labels = written(tmp_path / "l.csv", "name,discrete\na,happy\nb,happy\nc,angry\nd,worried\ne,sad\n")
    folder = predictions(tmp_path, {"a": "happy", "b": "afraid", "c": "happy", "e": "sadness", "d": "worried"})
    found = scored("mer2023", labels, folder)
    # happiness: f1 2*1/(2+2) = 0.5, support 2; anger 0; sadness 1. "afraid" is a class the benchmark does not have.
    assert values(found, "weighted_f1", "war") == [50.0, 50.0]
    assert (found.left_out, found.unparsable, found.unused) == ({"worried": 1}, (), 1)
    released = scored("mer2023", labels, folder, legacy=True)
    # "afraid" becomes happiness there: happiness f1 2*2/(2+3), anger 0, sadness 1
    assert values(released, "overall_f1_weighted") == [pytest.approx((0.8 * 2 + 0 + 1) / 4, abs=1e-6)]


# EMER -----------------------------------------------------------------------------------------------------------------


def judged(*scores: int) -> str:
    return "```json\n" + json.dumps(dict(zip(CRITERIA, scores, strict=True)) | {"cue_overlap_reason": "r"}) + "\n```"


def test_emer_means_of_four_criteria(tmp_path: Path) -> None:
    table = written(tmp_path / "ov.csv", 'name,reason\ns1,"He smiles, so he is happy."\ns2,b\ns3,c\ns4,d\n')
    folder = predictions(tmp_path, {"s1": judged(6, 7, 8, 10), "s2": judged(4, 5, 6, 1), "s3": "not json"}, ".json")
    found = scored("emer", table, folder)
    assert values(found, *CRITERIA) == [pytest.approx(11 / 3, abs=1e-5), pytest.approx(13 / 3, abs=1e-5), 5.0, 4.0]
    assert (found.scored, found.missing, found.unparsable) == (3, ("s4",), ("s3",))
    released = scored("ovmerd", table, folder, legacy=True)
    assert values(released, "avg_cue_overlap", "avg_hallucinated_cues") == [5.0, 5.5]
    written(folder / "s4.json", judged(11, 5, 5, 5))  # out of range: unreadable here, counted there
    assert scored("emer", table, folder).unparsable == ("s3", "s4")
    assert values(scored("emer", table, folder, legacy=True), "avg_cue_overlap") == [7.0]
    written(folder / "s4.json", '{"cue_overlap": 3}')
    with pytest.raises(InputError, match="s4 lacks a score"):
        scored("emer", table, folder, legacy=True)


def test_emer_reads_a_batch_services_replies(tmp_path: Path) -> None:
    table = written(tmp_path / "ov.csv", "name,reason\ns1,a\ns2,b\n")
    body = {"choices": [{"message": {"content": judged(1, 2, 3, 4)}}]}
    rows = [{"custom_id": "s1", "response": {"body": body}}, {"id": "s2"} | dict.fromkeys(CRITERIA, 3)]
    found = scored("emer", table, written(tmp_path / "r.jsonl", "\n".join(json.dumps(row) for row in rows)))
    assert values(found, *CRITERIA) == [2.0, 2.5, 3.0, 3.5]


@pytest.mark.parametrize("reply", ["", "[]", judged(0, 5, 5, 5), judged(5, 5, 5, 11), '{"cue_overlap": 5}', "7",
                                   judged(5, 5, 5, 5).replace("5", '"5"'),
                                   *(judged(5, 5, 5, 5).replace("5", n) for n in ("5.5", "NaN", "Infinity", "1e999")),
                                   ])  # fmt: skip
def test_a_judgement_that_is_not_four_whole_scores_is_unreadable(reply: str) -> None:
    assert parse_judgement(reply) is None


# AVHBench, CMM --------------------------------------------------------------------------------------------------------


def test_avhbench_per_task(tmp_path: Path) -> None:
    v2a, a2v = "Video-driven Audio Hallucination", "Audio-driven Video Hallucination"
    rows = [("v1", v2a, "Yes"), ("v1", v2a, "No"), ("v1", a2v, "Yes"), ("v1_swap", "AV Matching", "No"),
            ("v1", "AV Captioning", "A man sleeps."), ("v2", v2a, "No")]  # fmt: skip
    items = [{"video_id": v, "task": t, "text": "?", "label": label} for v, t, label in rows]
    said = {"v1_0": "Yes.", "v1_1": "Yes, it is.", "v1_2": "It might be.", "v1_swap_0": "No", "v2_0": "no"}
    found = scored("avhbench", written(tmp_path / "qa.json", json.dumps(items)), predictions(tmp_path, said))
    names = [f"video_driven_audio_{m}" for m in ("accuracy", "precision", "recall", "f1", "yes_percentage")]
    third = pytest.approx(200 / 3, abs=1e-5)
    assert values(found, *names) == [third, 50.0, 100.0, third, third]
    assert values(found, "audio_driven_video_accuracy", "matching_accuracy") == [0.0, 100.0]
    assert values(found, "average_accuracy") == [pytest.approx((200 / 3 + 0 + 100) / 3, abs=1e-5)]
    assert (found.left_out, found.unparsable) == ({"captioning": 1}, ("v1_2",))


def test_cmm_in_the_released_layout(tmp_path: Path) -> None:
    said = [("yes", "Yes, there is a river.", "object-level"), ("no", "Well, no.", "object-level"),
            ("no", "Yes.", "event-level"), ("yes", "It is not visible", "event-level")]  # fmt: skip
    rows = [{"sub_category": "visual-language", "granularity": g, "video_path": f"{i}.mp4", "answer": a, "pred": p}
            for i, (a, p, g) in enumerate(said)]  # fmt: skip
    file = written(tmp_path / "final_output.json", "\n".join(json.dumps(row) for row in rows))
    strict = scored("cmm", file, file)
    assert values(strict, "overall_pa", "overall_hr", "overall_accuracy", "overall_yes_percentage") == [50.0] * 4
    assert values(strict, "visual_language_object_level_hr", "visual_language_event_level_hr") == [100.0, 0.0]
    assert strict.unparsable == ("3",)
    released = scored("cmm", file, file, legacy=True)  # "Well, no." has its answer behind the fifth character
    assert values(released, "overall_pa", "overall_hr", "overall_accuracy") == [0.5, 0.0, 0.25]


def test_cmm_golds_that_end_in_a_stop_count_as_the_released_scorer_counts_them(tmp_path: Path) -> None:
    """Accuracy looks for "yes." and "no." as written; pa and hr for the words."""
    said = [("Yes.", "Yes, there is."), ("Yes.", "yes."), ("no.", "No"), ("No.", "No."), ("yes", "Yes, it is.")]
    rows = [{"sub_category": "s", "granularity": "g", "answer": a, "pred": p} for a, p in said]
    file = written(tmp_path / "final_output.json", "\n".join(json.dumps(row) for row in rows))
    released = scored("cmm", file, file, legacy=True)
    assert values(released, "overall_accuracy", "overall_pa", "overall_hr") == [0.6, 1.0, 1.0]
    assert values(scored("cmm", file, file), "overall_accuracy") == [100.0]


# files ----------------------------------------------------------------------------------------------------------------


def test_emorealm_from_files_agrees_with_the_figures_of_a_run(tmp_path: Path) -> None:
    items = [{"id": f"q/{i}", "video": f"{i // 2}.mp4", "task": "modality_agreement", "question": "?",
              "choices": ["(A) Yes", "(B) No"], "answer": "AB"[i % 2]} for i in range(6)]  # fmt: skip
    said = {"q/0": "(A)", "q/1": "No.", "q/2": "yes", "q/3": "(A) Yes", "q/4": "perhaps"}
    file = written(tmp_path / "e.json", json.dumps(items))
    found = scored("emorealm", file, predictions(tmp_path, said))
    assert values(found, "modality_agreement_overall_accuracy", "average_accuracy") == [50.0, 50.0]
    assert (found.missing, found.unparsable) == (("q/5",), ("q/4",))
    released = scored("emorealm", file, predictions(tmp_path, said), legacy=True)
    assert values(released, "average_accuracy") == [20.0]  # one letter of five; words do not count


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("p.json", "[1]", "row 0: 1 is no row"),
        ("p.json", '[{"id": "a"}]', "id a.*no response"),
        ("p.json", '[{"id": "a", "pred": "x"}, {"id": "a", "pred": "y"}]', "a occurs twice"),
        ("p.jsonl", '{"id": "a", "pred": "x"}\n{oops', "line 2"),
        ("p.json", "", "empty"),
        ("p.csv", "a,b", r"must be \.json"),
    ],
)
def test_predictions_that_cannot_be_used_say_why(tmp_path: Path, name: str, text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_predictions(written(tmp_path / name, text))


def test_predictions_from_a_mapping_and_missing_places(tmp_path: Path) -> None:
    assert read_predictions(written(tmp_path / "p.json", '{"a": "x"}')) == {"a": "x"}
    with pytest.raises(InputError, match="do not exist"):
        read_predictions(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no .txt file"):
        read_predictions(tmp_path / "empty")


def test_predictions_of_another_benchmark_are_refused_with_both_kinds_of_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'q7'.*'1', '2', '3', \.\.\."):
        scored("dfew", written(tmp_path / "set_1.csv", DFEW_CSV), predictions(tmp_path, {"q7": "happy"}))


def test_options_and_rules_a_benchmark_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fold 1 means nothing to cmm"):
        check_options(SCORERS["cmm"], ReadOptions(fold=1))
    file = written(tmp_path / "q.json", '[{"video_id": "v", "task": "AV Matching", "text": "?", "label": "No"}]')
    with pytest.raises(ConfigError, match="no released scorer of avhbench"):
        scored("avhbench", file, predictions(tmp_path, {"v_0": "no"}), legacy=True)


@pytest.mark.parametrize("name", ["dfew", "mer2023", "emer"])
def test_a_table_without_its_columns_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"no column .*it has x, y"):
        SCORERS[name].read(written(tmp_path / "t.csv", "x,y\n1,2\n"), NO_OPTIONS)
