"""Pairs that cannot be trained on: each is left out with its id and its reason."""

import dataclasses

import pytest
from pairmaker import make_pair

from avere_ray.config import LossConfig, TrainConfig
from avere_ray.learner.objective import forward_passes
from avere_ray.learner.preflight import check_pairs
from avere_ray.ledger import Ledger
from avere_ray.records import PreferencePair

LIMITS = TrainConfig(max_response_tokens=8, max_prompt_tokens=100)


def check(
    *pairs: PreferencePair, prompt: int | None = 50, adapter_off: bool = False, **loss: object
) -> tuple[list[str], list[int], dict[str, str]]:
    """Ids used, lengths, and reason by id of those left out; a response has as many tokens as words, a prompt without
    media has 10."""
    ledger = Ledger("adapters")
    usable, sizes = check_pairs(
        pairs,
        LIMITS,
        ledger,
        passes=forward_passes(LossConfig.model_validate(loss), adapter_off=adapter_off),
        response_tokens=lambda text: len(text.split()),
        prompt_tokens=lambda _: prompt,
        words_tokens=lambda _: 10,
    )
    assert len(usable) + len(ledger.drops) == len(pairs)
    assert all(d.sample_id in d.message for d in ledger.drops)
    return [p.pair_id for p in usable], sizes, {d.sample_id: d.reason for d in ledger.drops}


GOOD = make_pair(0, 3)


def test_a_good_pair_counts_its_prompt_twice_for_the_swapped_branch() -> None:
    alone = dataclasses.replace(GOOD, pair_id="alone", swap=None)
    used, sizes, dropped = check(GOOD, alone)
    assert (used, dropped) == (["pair000", "alone"], {})
    chosen, rejects = len(GOOD.chosen.split()), sum(len(r.text.split()) for r in GOOD.rejects)
    assert sizes == [50 + chosen + rejects + 50 + chosen, 50 + chosen + rejects]


P, C, R = 50, 6, 14
"""Tokens of prompt, chosen response and both rejects of GOOD."""
CLEAN = P + C + R


@pytest.mark.parametrize(
    ("loss", "modality", "size"),
    [
        ({"kind": "dpo"}, "audio", CLEAN),
        ({"kind": "avem_dpo"}, "audio", CLEAN + P + C),
        ({"kind": "avem_dpo", "lambda_av": 0.0}, "audio", CLEAN),
        ({"kind": "vista_dpo"}, "audio", CLEAN + 2 * (P + C)),
        ({"kind": "vista_dpo"}, "audio_video", CLEAN + P + C),
        ({"kind": "vista_dpo", "released": True}, "audio", 2 * (P + C)),
        ({"kind": "mod_dpo"}, "audio", 2 * CLEAN),
        ({"kind": "mod_dpo"}, "audio_video", CLEAN),
        ({"kind": "mod_dpo_pp", "text_prior": "adaptive"}, "audio", 2 * CLEAN + 10 + C + R),
        ({"kind": "avem_dpo", "adapter_off": True}, "audio", CLEAN + P + C + 10 + C + R),
        ({"kind": "mod_dpo", "adapter_off": True}, "audio", 2 * CLEAN),
    ],
)
def test_a_pair_is_as_long_as_its_longest_forward_pass(loss: dict, modality: str, size: int) -> None:
    assert GOOD.swap is not None
    pair = dataclasses.replace(GOOD, modality=modality, swap=dataclasses.replace(GOOD.swap, modality=modality))  # type: ignore[arg-type]
    assert check(pair, **loss)[1] == [size]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": " "}, "no_chosen"),
        ({"rejects": ()}, "no_reject"),
        ({"rejects": (dataclasses.replace(GOOD.rejects[0], text=""),)}, "empty_response"),
        ({"rejects": (dataclasses.replace(GOOD.rejects[0], text=GOOD.chosen + " "),)}, "chosen_equals_reject"),
        ({"modality": "smell"}, "unknown_modality"),
        ({"chosen": "one two three four five six seven eight nine"}, "response_too_long"),
        ({"rejects": (dataclasses.replace(GOOD.rejects[0], text="a b c d e f g h i"),)}, "response_too_long"),
    ],
)
def test_a_bad_pair_is_left_out_with_its_reason(changes: dict, reason: str) -> None:
    bad = dataclasses.replace(GOOD, pair_id="bad", **changes)
    assert check(GOOD, bad)[0::2] == (["pair000"], {"bad": reason})


def test_limits_are_inclusive() -> None:
    assert check(dataclasses.replace(GOOD, chosen="1 2 3 4 5 6 7 8"), prompt=100)[0] == ["pair000"]


@pytest.mark.parametrize(("prompt", "reason"), [(101, "prompt_too_long"), (None, "clip_not_decoded")])
def test_a_prompt_that_cannot_be_shown_leaves_its_pair_out(prompt: int | None, reason: str) -> None:
    assert check(GOOD, prompt=prompt)[2] == {"pair000": reason}


def test_a_pair_without_a_modality_tag_stays() -> None:
    assert check(dataclasses.replace(GOOD, modality=""))[0] == ["pair000"]  # type: ignore[arg-type]
