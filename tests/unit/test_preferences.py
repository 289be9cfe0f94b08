"""Pairs: who is chosen, which rejects are taken or written, and that no query disappears."""

import dataclasses

import pytest
from judgedmaker import (
    CLIP,
    HALLUCINATED,
    MIXED,
    OPEN,
    RULES,
    SPURIOUS,
    UNWRITTEN,
    YES_NO,
    pair,
    pair_of,
    rejects,
    sampled,
    stress,
)

from avere_ray import prompts
from avere_ray.config import PreferenceConfig
from avere_ray.errors import StageError
from avere_ray.fakes import make_rollout
from avere_ray.preferences import build_pairs, normalise, stood_in, summarise, to_write
from avere_ray.records import (
    Drop,
    PreferencePair,
    Query,
    VerdictLabel,
)
from avere_ray.verdicts import judge_by_rules


def test_most_frequent_texts_are_taken_from_the_rollouts() -> None:
    made = pair(OPEN, [
        "The person is angry. I see lowered brows.", "The person is angry. I see lowered brows!",
        "The person is angry. I hear a loud harsh voice.",
        "The person is angry. I see a red shirt.", "He is angry because of the piano music.",
        "The person is angry. I see a red shirt.",
        "The person is angry. I see clenched fists.", "The person is sad.",
    ])  # fmt: skip
    assert (made.chosen, made.chosen_source) == ("The person is angry. I see lowered brows.", "rollout")
    assert rejects(made) == {
        SPURIOUS: ("The person is angry. I see a red shirt.", "rollout"),
        HALLUCINATED: ("The person is angry. I see clenched fists.", "rollout"),
    }


def test_a_bare_claim_is_not_chosen_over_one_with_evidence() -> None:
    made = pair(OPEN, ["The person is angry.", "The person is angry.", "The person is angry. I see lowered brows."])
    assert made.chosen == "The person is angry. I see lowered brows."


def test_the_reference_is_chosen_when_no_rollout_is_faithful_or_by_config() -> None:
    made = pair(OPEN, ["The person is angry because of the red shirt."])
    assert (made.chosen, made.chosen_source) == (OPEN.reference, "reference")
    made = pair(OPEN, ["The person is angry. I see lowered brows."], PreferenceConfig(chosen="reference"))
    assert (made.chosen, made.chosen_source) == (OPEN.reference, "reference")


def test_cut_or_doubtful_rollouts_are_not_chosen() -> None:
    rollouts, verdicts = sampled(OPEN, ["The person is angry. I see lowered brows.",
                                        "The person is angry because of the golden crown."])  # fmt: skip
    rollouts[0] = dataclasses.replace(rollouts[0], finish_reason="length")
    assert {v.label for v in verdicts.values()} == {VerdictLabel.FAITHFUL}
    pairs, _ = build_pairs([OPEN], {"q": rollouts}, verdicts, {"c": CLIP}, {}, RULES, 0)
    assert pairs[0].chosen_source == "reference"


def test_written_rejects_are_minimal_edits_with_one_failure_each() -> None:
    chosen = "The person is angry. I see lowered brows and I hear a loud harsh voice."
    made = pair(OPEN, [chosen])
    found = rejects(made)
    assert {source for _, source in found.values()} == {"written"}
    assert found[SPURIOUS][0] in {
        "The person is angry. I see a red shirt and I hear a loud harsh voice.",
        "The person is angry. I see lowered brows and I hear piano music.",
    }
    assert found[HALLUCINATED][0] in {
        "The person is angry. I see clenched fists and I hear a loud harsh voice.",
        "The person is angry. I see lowered brows and I hear growling.",
    }


def test_an_edit_keeps_article_and_verb_in_order() -> None:
    made = pair(dataclasses.replace(OPEN, modality="video"), ["The lowered brows show anger."])
    assert rejects(made)[SPURIOUS][0] == "The red shirt shows anger."
    assert rejects(made)[HALLUCINATED][0] == "The clenched fists show anger."


def test_a_chosen_response_without_cues_gets_one_added() -> None:
    made = pair(dataclasses.replace(OPEN, modality="audio"), ["The person is angry."])
    assert rejects(made)[SPURIOUS][0] == "The person is angry because of the piano music."
    assert rejects(made)[HALLUCINATED][0] == "The person is angry because of the growling."


def test_written_rejects_of_stress_questions_flip_the_answer() -> None:
    yes = pair(stress("lowered_brows", "A"), ["(A) Yes, the lowered brows show anger."])
    assert rejects(yes) == {
        SPURIOUS: ("(B) No, the lowered brows say nothing about the emotion.", "written"),
        HALLUCINATED: ("(B) No, there are no lowered brows.", "written"),
    }
    shirt = pair(stress("red_shirt", "B"), ["(B) No, the red shirt says nothing about the emotion."])
    assert rejects(shirt)[SPURIOUS] == ("(A) Yes, the red shirt shows anger.", "written")
    added = "(B) No, the red shirt says nothing about the emotion, but the clenched fists show anger."
    assert rejects(shirt)[HALLUCINATED] == (added, "written")
    fists = pair(stress("clenched_fists", "B"), ["(B) No, there are no clenched fists."])
    assert rejects(fists) == {
        SPURIOUS: ("(B) No, there are no clenched fists, but the red shirt shows anger.", "written"),
        HALLUCINATED: ("(A) Yes, the clenched fists show anger.", "written"),
    }


def test_letters_follow_the_choices_of_the_query() -> None:
    turned = stress("red_shirt", "A", ("(A) No", "(B) Yes"))
    made = pair(turned, ["(A) No, the red shirt says nothing about the emotion."])
    assert rejects(made)[SPURIOUS][0] == "(B) Yes, the red shirt shows anger."


def test_written_rejects_of_four_choices_are_other_options() -> None:
    query = Query(query_id="q", clip_id="c", modality="video", task="reasoning_basic_video", prompt="?", answer="C",
                  choices=("(A) a red shirt", "(B) clenched fists", "(C) lowered brows", "(D) tears"))  # fmt: skip
    made = pair(query, ["(C) lowered brows."])
    assert rejects(made)[SPURIOUS] == ("(A) a red shirt.", "written")
    assert rejects(made)[HALLUCINATED][0] in {"(B) clenched fists.", "(D) tears."}


def test_agreement_questions_get_the_other_answer() -> None:
    query = prompts.Query(query_id="q", clip_id="c", modality="audio_video", task="modality_agreement", prompt="?",
                          choices=YES_NO, answer="B")  # fmt: skip
    made = pair(query, ["(B) No, the face looks angry but the voice sounds sad."], clip=MIXED)
    assert rejects(made)[SPURIOUS][0] == "(A) Yes, the face looks angry and the voice sounds angry."
    assert rejects(made)[HALLUCINATED][0] == "(A) Yes, the face looks sad and the voice sounds sad."
    made = pair(dataclasses.replace(query, answer="A"), ["(A) Yes, the face looks angry and the voice sounds angry."])
    assert len(made.rejects) == 1
    assert made.rejects[0].text.startswith("(B) No, the face looks angry but the voice sounds ")


def test_a_wrong_letter_of_the_policy_comes_before_a_written_reject() -> None:
    made = pair(stress("lowered_brows", "A"), ["(A) Yes, the lowered brows show anger.", "(B) No, it does not."])
    assert rejects(made)[SPURIOUS] == ("(B) No, it does not.", "rollout")
    assert rejects(made)[HALLUCINATED][1] == "written"


def test_a_right_letter_with_a_wrong_reason_is_the_last_resort() -> None:
    texts = ["(B) No, the red shirt says nothing about the emotion.", "(B) No, there is no red shirt."]
    made = pair(stress("red_shirt", "B"), texts)
    assert {source for _, source in rejects(made).values()} == {"written"}
    made = pair(stress("red_shirt", "B"), texts, UNWRITTEN)
    assert rejects(made) == {SPURIOUS: ("(B) No, there is no red shirt.", "rollout")}


def test_a_reject_never_repeats_the_chosen_response() -> None:
    query = dataclasses.replace(OPEN, reference="The person is angry, because of the red shirt")
    made = pair(query, ["The person is angry because of the red shirt."])
    assert made.chosen == query.reference
    texts = [normalise(t) for t in (made.chosen, *(r.text for r in made.rejects))]
    assert len(set(texts)) == len(texts)


def test_a_much_longer_reject_is_used_only_without_an_other() -> None:
    long = "The person is angry because of the red shirt" + " and the red shirt" * 20 + "."
    short = "The person is angry because of the red shirt."
    chosen = "The person is angry. I see lowered brows."
    assert rejects(pair(OPEN, [chosen, long, long, short]))[SPURIOUS][0] == short
    assert rejects(pair(OPEN, [chosen, long]))[SPURIOUS] == ("The person is angry. I see a red shirt.", "written")
    assert rejects(pair(OPEN, [chosen, long], PreferenceConfig(max_length_ratio=None)))[SPURIOUS][0] == long


@pytest.mark.parametrize(
    ("query", "texts", "rules", "reason"),
    [
        (OPEN, [], RULES, "no_rollouts"),
        (dataclasses.replace(OPEN, reference=""), ["The person is sad."], RULES, "no_chosen"),
        (OPEN, ["The person is angry."], UNWRITTEN, "all_faithful"),
        (OPEN, ["The person is angry.", "Hm."], UNWRITTEN, "no_reject"),
    ],
)
def test_queries_without_a_pair_are_dropped_with_their_reason(
    query: Query, texts: list[str], rules: PreferenceConfig, reason: str
) -> None:
    made = pair_of(query, texts, rules)
    assert isinstance(made, Drop)
    assert (made.sample_id, made.stage, made.reason) == ("q", "pairs", reason)


def test_near_duplicates_count_as_one_unless_only_spelling_is_to_count() -> None:
    texts = ["The person is angry. I see lowered brows.", "The person is really angry. I see the lowered brows.",
             "The person is angry. I hear a loud harsh voice."]  # fmt: skip
    assert {pair(OPEN, texts, seed=s).chosen for s in range(8)} == {texts[0]}
    spelled = PreferenceConfig(near_duplicate=None)
    assert len({pair(OPEN, texts, spelled, seed=s).chosen for s in range(12)}) > 1


def test_a_share_of_equal_words_makes_near_duplicates_only_of_texts_with_the_same_cues() -> None:
    texts = ["The person is angry. I see lowered brows.", "I think the person is angry. I see lowered brows.",
             "The person is angry. I hear a loud harsh voice."]  # fmt: skip
    loose = PreferenceConfig(near_duplicate=0.8)
    assert {pair(OPEN, texts, loose, seed=s).chosen for s in range(8)} == {texts[0]}
    made = pair(OPEN, ["The person is angry. I see lowered brows.", "The person is angry. I see a red shirt."], loose)
    assert rejects(made)[SPURIOUS] == ("The person is angry. I see a red shirt.", "rollout")


def test_pairs_that_repeat_another_are_dropped() -> None:
    twin = dataclasses.replace(OPEN, query_id="p")
    rollouts, verdicts = sampled(OPEN, ["The person is angry. I see lowered brows."])
    again, more = sampled(twin, ["The person is angry. I see lowered brows!"])
    rules = PreferenceConfig(written_rejects=True)
    by_query = {"q": rollouts, "p": again}
    same = {seed: build_pairs([OPEN, twin], by_query, verdicts | more, {"c": CLIP}, {}, rules, seed)
            for seed in range(12)}  # fmt: skip
    dropped = [d for _, drops in same.values() for d in drops]
    assert {(d.sample_id, d.reason) for d in dropped} == {("p", "duplicate")}
    assert "repeats that of query q" in dropped[0].message


def test_selection_drops_with_a_reason() -> None:
    both = PreferenceConfig(both_kinds_only=True, written_rejects=False)
    one = pair_of(OPEN, ["The person is angry. I see lowered brows.", "I see a red shirt."], both)
    assert isinstance(one, Drop)
    assert one.reason == "one_kind"
    hard = PreferenceConfig(hard_only=True)
    for texts in (["The person is angry."], ["The person is sad."]):
        easy = pair_of(OPEN, texts, hard)
        assert isinstance(easy, Drop)
        assert easy.reason == "not_hard"
    assert isinstance(pair_of(OPEN, ["The person is angry.", "The person is sad."], hard), PreferencePair)


def test_ties_are_dropped_by_margin() -> None:
    rollouts, verdicts = sampled(OPEN, ["The person is angry. I see lowered brows.", "I see a red shirt."])
    unsure = {k: dataclasses.replace(v, confidence=0.65 if k == "q#0" else 0.4) for k, v in verdicts.items()}
    for margin, made in ((0.0, 1), (0.1, 0)):
        rules = PreferenceConfig(min_margin=margin, written_rejects=False)
        pairs, drops = build_pairs([OPEN], {"q": rollouts}, unsure, {"c": CLIP}, {}, rules, 0)
        assert len(pairs) == made
        assert [d.reason for d in drops] == ["low_margin"] * (1 - made)


BARE = dataclasses.replace(CLIP, cues=(), caption="A man with lowered brows.")


def test_what_rules_cannot_write_is_asked_of_a_model_and_marked() -> None:
    rollouts, verdicts = sampled(OPEN, ["The person is angry. I see lowered brows.", "I see a red shirt."])
    wanted = to_write([OPEN], {"q": rollouts}, verdicts, {"c": BARE}, RULES, 0)
    assert [(w.kind, w.chosen) for w in wanted] == [(HALLUCINATED, "The person is angry. I see lowered brows.")]
    assert to_write([OPEN], {"q": rollouts}, verdicts, {"c": CLIP}, RULES, 0) == []
    assert to_write([OPEN], {"q": rollouts}, verdicts, {"c": BARE}, UNWRITTEN, 0) == []
    written = {("q", HALLUCINATED): ["The person is angry. I see clenched fists."]}
    pairs, _ = build_pairs([OPEN], {"q": rollouts}, verdicts, {"c": BARE}, {}, RULES, 0, written)
    assert rejects(pairs[0])[HALLUCINATED] == ("The person is angry. I see clenched fists.", "written")


def test_choice_questions_need_no_cues_for_a_written_reject() -> None:
    query = Query(query_id="q", clip_id="c", modality="video", task="reasoning_basic_video", prompt="?", answer="C",
                  choices=("(A) a red shirt", "(B) clenched fists", "(C) lowered brows", "(D) tears"))  # fmt: skip
    rollouts, verdicts = sampled(query, ["(C) lowered brows."])
    pairs, _ = build_pairs([query], {"q": rollouts}, verdicts, {"c": BARE}, {}, RULES, 0)
    assert {r.text for r in pairs[0].rejects} < {"(A) a red shirt.", "(B) clenched fists.", "(D) tears."}
    assert len(pairs[0].rejects) == 2
    asked = stress("red_shirt", "B")
    rollouts, verdicts = sampled(asked, ["(B) No."])
    pairs, _ = build_pairs([asked], {"q": rollouts}, verdicts, {"c": BARE}, {}, RULES, 0)
    assert rejects(pairs[0]) == {SPURIOUS: ("(A) Yes.", "written")}


def test_a_clip_without_cues_still_pairs_from_rollouts_judged_elsewhere() -> None:
    bare = dataclasses.replace(CLIP, cues=())
    rollouts, verdicts = sampled(OPEN, ["The person is angry. I see lowered brows.", "I see clenched fists."])
    pairs, _ = build_pairs([OPEN], {"q": rollouts}, verdicts, {"c": bare}, {}, RULES, 0)
    assert rejects(pairs[0]) == {HALLUCINATED: ("I see clenched fists.", "rollout")}


def test_a_rollout_without_verdict_or_clip_stops_the_stage() -> None:
    rollouts, verdicts = sampled(OPEN, ["The person is angry."])
    with pytest.raises(StageError, match=r"1 of 1 rollouts of query q have no verdict.*q#0"):
        build_pairs([OPEN], {"q": rollouts}, {}, {"c": CLIP}, {}, RULES, 0)
    with pytest.raises(StageError, match="not in the clip table"):
        build_pairs([OPEN], {"q": rollouts}, verdicts, {}, {}, RULES, 0)


def test_same_seed_same_pairs_and_another_seed_breaks_ties_otherwise() -> None:
    texts = ["The person is angry. I see lowered brows.", "The person is angry. I hear a loud harsh voice."]
    assert pair(OPEN, texts, seed=1) == pair(OPEN, list(texts), seed=1)
    assert len({pair(OPEN, texts, seed=s).chosen for s in range(12)}) == 2


def test_every_training_query_of_a_clip_gets_both_rejects_or_the_one_that_exists() -> None:
    for clip in (CLIP, MIXED):
        queries = prompts.all_queries(clip, seed=1)
        assert len(queries) >= 9
        for query in queries:
            made = pair(query, [query.reference], clip=clip)
            for reject in made.rejects:
                rollout = make_rollout(query, 0, reject.text)
                assert judge_by_rules(rollout, query, clip).label is not VerdictLabel.FAITHFUL
            expected = 1 if query.task == "modality_agreement" and query.answer == "A" else 2
            assert len(made.rejects) == expected, (query, made.rejects)


def test_a_wrong_emotion_in_the_place_of_a_kind_is_counted() -> None:
    texts = ["I see a red shirt.", "The person is sad, and I hear a loud harsh voice."]
    rollouts, verdicts = sampled(OPEN, texts)
    assert verdicts[rollouts[1].rollout_id].label is VerdictLabel.WRONG_EMOTION
    made = pair(OPEN, texts)
    assert rejects(made)[HALLUCINATED] == (texts[1], "rollout")
    assert stood_in([made], {"q": rollouts}, verdicts) == 1
    assert stood_in([pair(OPEN, texts[:1])], {"q": rollouts}, verdicts) == 0


def test_summary_gives_shares() -> None:
    on_policy = pair(OPEN, ["The person is angry. I see lowered brows.", "I see a red shirt.", "I see clenched fists."])
    written = pair(OPEN, ["The person is sad. I see tears."])
    dropped = pair_of(OPEN, [])
    assert isinstance(dropped, Drop)
    summary = summarise([on_policy, written], [dropped])
    assert summary["pairs"] == 2
    assert summary["dropped_no_rollouts"] == 1
    assert summary["chosen_on_policy_share"] == summary["chosen_reference_share"] == 0.5
    assert summary["reject_on_policy_share"] == 0.75
    assert summary["reject_written_share"] == 0.25
    assert summary["texts_on_policy_share"] == pytest.approx(4 / 6)
    assert summary["texts_written_share"] == summary["texts_reference_share"] == pytest.approx(1 / 6)
    assert 1.0 <= summary["reject_length_ratio_mean"] < 3.0
    assert summary["both_kinds_share"] == 1.0
    assert summarise([], [])["pairs"] == 0
