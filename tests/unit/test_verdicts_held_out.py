"""Sentences that the first rules were not made from: how often the rule judge agrees with a person on them.

They were written before `rules/1` met them (59 of 77 right then). `rules/2` learned from some, so they are no longer
held out; what is held out now are the parts "test" and "fresh" of `avere_ray/responses/labelled`.
"""

from test_verdicts import AGREE, CLIPS, DISAGREE, LOOK, OPEN, SOUND, F, H, S, U, W, basic, make_clip, stress

from avere_ray.fakes import make_rollout
from avere_ray.records import Query, Verdict, VerdictLabel
from avere_ray.verdicts import corpus_lexicon, judge_by_rules

ALL_CLIPS = CLIPS | {
    "scared": make_clip("scared", "fear", "fear",
                        "frightened_eyes hands_at_cheeks trembling_voice rapid_breathing blue_shirt lamp piano"),
    "startled": make_clip("startled", "surprise", "surprise",
                          "open_round_mouth raised_palms sudden_high_voice gasp red_shirt lamp rain"),
    "sad": make_clip("sad", "sadness", "sadness",
                     "drooping_mouth tears slow_low_voice sobbing red_shirt plant rain"),
}  # fmt: skip
LEXICON = corpus_lexicon(ALL_CLIPS.values())

CHEEKS, TREMBLING = stress("hands_at_cheeks", "A"), stress("trembling_voice", "A", "audio")
BLUE, GASP = stress("blue_shirt", "B"), stress("gasp", "B", "audio")
TEARS, PLANT, RAIN = stress("tears", "A"), stress("plant", "B"), stress("rain", "B", "audio")
NO_FISTS, GROWL = stress("clenched_fists", "B"), stress("growling", "A", "audio")
MOUTH = basic("B", "a lamp in the background", "an open round mouth", "clenched fists", "tears")

CASES: list[tuple[str, Query, str, VerdictLabel]] = [
    ("scared", OPEN, "Her eyes are wide with terror and she presses both hands to her cheeks; clearly she is afraid.",
     F),
    ("scared", OPEN, "The trembling of the voice betrays fear.", F),
    ("scared", OPEN, "Nothing in the clip suggests anger; the fast breathing points to fear.", F),
    ("scared", OPEN, "It is dark next to the lamp, which makes me think the person is scared.", S),
    ("scared", OPEN, "Fearful. The lamp behind her is just part of the room.", F),
    ("scared", OPEN, "She gasps, so she must be scared.", H),
    ("scared", OPEN, "If she were sad there would be tears, but she is frightened.", F),
    ("scared", OPEN, "One might expect laughter, yet the voice is shaky: she is terrified.", F),
    ("scared", OPEN, "Judging from the tears running down her face, she is frightened.", H),
    ("scared", SOUND, "You can hear her breathing rapidly, and her voice shakes.", F),
    ("scared", SOUND, "The piano in the background creates a tense mood, so the speaker sounds anxious.", S),
    ("scared", LOOK, "The look in her eyes is one of panic.", F),
    ("scared", CHEEKS, "Yes - she holds her cheeks with both hands, a typical gesture of fright.", F),
    ("scared", BLUE, "Blue is a cold colour, so yes, the shirt fits her fear.", S),
    ("scared", BLUE, "No. What she wears tells us nothing about how she feels.", F),
    ("scared", GASP, "(B) No. I did not hear any gasp, only quick breaths.", F),
    ("scared", GASP, "Yes, a gasp can be heard right at the start.", H),
    ("scared", GASP, "Could you repeat the question?", U),
    ("scared", TREMBLING, "(A) Yes. Her voice quivers because she is scared.", F),
    ("scared", TREMBLING, "(B) No, the voice is perfectly steady.", W),
    ("startled", OPEN, "His jaw dropped and his palms went up: he did not expect this at all.", F),
    ("startled", OPEN, "Wow, that person is really astonished!", F),
    ("startled", OPEN, "The person seems shocked and a little frightened.", W),
    ("startled", OPEN, "The gasp tells me that the person is startled; the rain is only weather.", F),
    ("startled", OPEN, "The person isn't scared, they are amazed.", F),
    ("startled", OPEN, "Since the lamp is on, he is surprised.", S),
    ("startled", OPEN, "He claps and opens his mouth in astonishment.", H),
    ("startled", SOUND, "The pitch of the voice jumps up suddenly, which signals amazement.", F),
    ("startled", LOOK, "He opens his mouth in a big round O.", F),
    ("startled", LOOK, "His brows are raised and his mouth hangs open in surprise.", F),
    ("startled", MOUTH, "I would go with B, the open mouth.", F),
    ("startled", MOUTH, "Definitely not tears. The lamp is irrelevant too. The open round mouth, so (B).", F),
    ("startled", MOUTH, "My choice: (C), since he makes fists.", H),
    ("sad", OPEN, "Tears are running down her cheeks and she sobs quietly. She is grieving.", F),
    ("sad", OPEN, "She looks miserable: the corners of her mouth point downward.", F),
    ("sad", OPEN, "The gloomy rain outside makes the scene sad.", S),
    ("sad", OPEN, "Even though it is raining, that is not why I think she is unhappy; her tears are.", F),
    ("sad", OPEN, "She is far from happy.", F),
    ("sad", OPEN, "She fails to hide her smile.", H),
    ("sad", OPEN, "She cannot stop crying.", F),
    ("sad", OPEN, "There isn't a single tear on her face.", W),
    ("sad", OPEN, "The person is in the room.", U),
    ("sad", SOUND, "Her speech is slow and subdued, with sobs in between.", F),
    ("sad", SOUND, "The speaker laughs it off.", H),
    ("sad", LOOK, "Her mouth droops; no sign of a grin.", F),
    ("sad", TEARS, "Of course. The tears are plain to see.", F),
    ("sad", TEARS, "I don't think so; her eyes are dry.", W),
    ("sad", PLANT, "Plants are often associated with loneliness, so (A).", S),
    ("sad", RAIN, "(B) No - rain is just weather.", F),
    ("happy", OPEN, "What a delighted person: laughing out loud and grinning from ear to ear!", F),
    ("happy", OPEN, "The bright red of the shirt radiates joy.", S),
    ("happy", OPEN, "There's a plant in the background, but it plays no part in my judgement. "
                    "The lively tone shows happiness.", F),
    ("happy", OPEN, "She is anything but sad.", F),
    ("happy", OPEN, "Her smile never appears.", W),
    ("happy", OPEN, "I cannot find any reason to call her unhappy; her laughter says the opposite.", F),
    ("happy", OPEN, "She is applauding cheerfully.", H),
    ("happy", AGREE, "They match: both are cheerful.", F),
    ("happy", AGREE, "The two modalities do not agree.", W),
    ("mixed", OPEN, "Although she smiles, her voice gives away her sorrow.", F),
    ("mixed", OPEN, "She smiles and she sounds delighted.", W),
    ("mixed", DISAGREE, "They do not match: a grin on the face, grief in the voice.", F),
    ("mixed", LOOK, "She is smiling, whatever her voice may say.", F),
    ("mixed", SOUND, "Don't be fooled by the smile: one can hear her sobbing.", F),
    ("mixed", SOUND, "The tone is cheerful.", W),
    ("angry", OPEN, "Both hands are balled into fists, and the eyebrows are pulled together. He is mad.", F),
    ("angry", OPEN, "His voice is anything but soft: he is yelling in fury.", F),
    ("angry", OPEN, "The red of his shirt underlines how furious he is.", S),
    ("angry", OPEN, "Is he sad? No. Is he angry? Yes, look at the brows.", F),
    ("angry", OPEN, "It's hard to say.", U),
    ("angry", OPEN, "Great question! Let me think about it.", U),
    ("brows", OPEN, "His hands are hanging loosely rather than clenched, but the scowl says enough.", F),
    ("brows", OPEN, "He looks ready to punch someone, with fists clenched.", H),
    ("brows", OPEN, "Were his fists clenched, I would be certain, but the growling alone suggests rage.", F),
    ("brows", OPEN, "He growls like a dog, therefore anger.", F),
    ("brows", NO_FISTS, "No fists are shown in this clip.", F),
    ("brows", NO_FISTS, "One can make out two clenched fists, so my answer is yes.", H),
    ("brows", GROWL, "He does indeed growl.", F),
]  # fmt: skip


def judge(clip: str, query: Query, text: str) -> Verdict:
    return judge_by_rules(make_rollout(query, 0, text), query, ALL_CLIPS[clip], LEXICON)


def test_agreement_with_a_person_on_new_wordings() -> None:
    """75 of 77 with `rules/2`, and none that the rules flatter."""
    told = [(text, label, judge(clip, query, text).label) for clip, query, text, label in CASES]
    wrong = [row for row in told if row[1] is not row[2]]
    assert len(told) - len(wrong) >= 75, "\n".join(map(str, wrong))
    flattered = [text for text, label, got in told if got is F and label is not F]
    assert not flattered
