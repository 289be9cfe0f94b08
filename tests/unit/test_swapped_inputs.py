"""Mismatched inputs of pairs: carried over, and left out where the chosen answer stays right."""

import dataclasses

import pytest
from judgedmaker import OPEN, SAD, pair, pair_of, stress

from avere_ray.config import PreferenceConfig
from avere_ray.records import (
    ModalitySwap,
    PreferencePair,
    Query,
)


def test_swap_and_ids_are_carried_over() -> None:
    swap = ModalitySwap(modality="audio_video", strategy="other_emotion", audio_clip_id="x", video_clip_id="x")
    made = pair_of(OPEN, ["The person is angry."], swaps={"q": swap})
    assert isinstance(made, PreferencePair)
    assert made.swap == swap
    assert pair(OPEN, ["The person is angry."]).swap is None
    assert (made.query_id, made.clip_id, made.modality, made.prompt) == ("q", "c", "audio_video", "?")
    assert made.pair_id != pair(OPEN, ["The person is angry."]).pair_id


@pytest.mark.parametrize(
    ("query", "said", "there", "kept"),
    [
        (stress("lowered_brows", "A"), "(A) Yes, the lowered brows show anger.", (), True),
        (stress("clenched_fists", "B"), "(B) No, there are no clenched fists.", (), False),
        (stress("clenched_fists", "B"), "(B) No, there are no clenched fists.", ("clenched_fists",), True),
        (stress("red_shirt", "B"), "(B) No, the red shirt says nothing about the emotion.", ("red_shirt",), False),
        (OPEN, "The person is angry. I see lowered brows.", (), True),
    ],
)
def test_a_mismatched_input_is_left_out_where_the_answer_stays_right(
    query: Query, said: str, there: tuple[str, ...], kept: bool
) -> None:
    """About the partner too there are no clenched fists, unless it has some, and its shirt says nothing either."""
    partner = dataclasses.replace(
        SAD, cues=tuple(dataclasses.replace(c, present=c.present or c.name in there) for c in SAD.cues)
    )
    whole = query is OPEN
    swap = ModalitySwap(modality=query.modality, strategy="other_emotion", audio_clip_id="x" if whole else "c",
                        video_clip_id="x")  # fmt: skip
    made = pair_of(query, [said], swaps={query.query_id: swap}, partner=partner)
    assert isinstance(made, PreferencePair) and made.swap == (swap if kept else None)
    made = pair_of(query, [said], PreferenceConfig(check_swaps=False), swaps={query.query_id: swap}, partner=partner)
    assert isinstance(made, PreferencePair) and made.swap == swap


def test_nothing_is_there_in_a_medium_made_useless() -> None:
    swap = ModalitySwap(modality="video", strategy="blank", audio_clip_id="c", video_clip_id="c~blank")
    for about, said, kept in (
        ("lowered_brows", "(A) Yes, the lowered brows show anger.", swap),
        ("clenched_fists", "(B) No, there are no clenched fists.", None),
    ):
        query = stress(about, said[1])
        made = pair_of(query, [said], swaps={query.query_id: swap})
        assert isinstance(made, PreferencePair) and made.swap == kept
    half_there = dataclasses.replace(swap, strategy="crop")
    made = pair_of(query, [said], swaps={query.query_id: half_there})
    assert isinstance(made, PreferencePair) and made.swap == half_there
