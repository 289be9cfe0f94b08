"""The strict reading of emotions. Of the 43 sentences first written, 40 were read as meant by the first version; two
were mended, one ("without anger, calmly", which stays unparsable) is left out here."""

import pytest

from avere_ray.evaluation.emotions import CLASSES, WORDS, parse_emotion


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("angry", "anger"), ("Sad.", "sadness"), ("scared", "fear"), ("NEUTRAL", "neutral"), ("unhappy", "sadness"),
        ("**Happy**", "happiness"), ("The emotion is: anger", "anger"), ("She's terrified!", "fear"),
        ("The person is happy.", "happiness"), ("Anger, rage and fury", "anger"), ("Anger, frustration", "anger"),
        ("taken aback", "surprise"), ("feeling down", "sadness"), ("Tears of joy", "happiness"),
        ("no emotion", "neutral"), ("He shows no strong emotion.", "neutral"), 
        ("neutral expression, no anger", "neutral"),
        ("He is far from calm; he is furious.", "anger"), ("He is not only angry, he is furious", "anger"),
        ("There is no doubt that she is happy.", "happiness"),
    ],
)  # fmt: skip
def test_one_claim(text: str, emotion: str) -> None:
    assert parse_emotion(text) == emotion


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("He is not angry but sad.", "sadness"), ("The woman seems sad, not angry.", "sadness"),
        ("No sign of fear; she is surprised.", "surprise"), ("Not sad. Happy.", "happiness"),
        ("She is sad rather than angry.", "sadness"), ("Rather than sad, he is angry.", "anger"),
        ("I don't think he is sad. He is angry.", "anger"), ("The man appears calm and is not angry", "neutral"),
        ("The person doesn't look happy or surprised; he looks disgusted", "disgust"),
        ("The person is neither angry nor sad, he is just surprised.", "surprise"),
        ("The emotion of the person in the video is fear, not surprise.", "fear"),
        ("not happy, just calm", "neutral"), ("no anger, fear or sadness", None),
        ("not happy", None), ("The man isn't angry.", None), ("neither happy nor sad", None),
        ("He cannot be described as happy.", None), ("He's not at all scared.", None), ("He shows no anger.", None),
    ],
)  # fmt: skip
def test_a_negated_word_is_no_claim(text: str, emotion: str | None) -> None:
    assert parse_emotion(text) == emotion


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("The person is angry. He raises his voice and there is fear in his eyes.", "anger"),
        ("There is anger in the room. Overall, the woman is sad.", "sadness"),
        ("happy or sad", None), ("happiness and surprise", None), ("He feels anger and sadness", None),
        ("In the video the man is smiling; overall he is happy though a bit afraid at first.", None),
        ("", None), ("Blue", None), ("I cannot tell.", None), ("Nothing about the man looks angry at all.", None),
    ],
)  # fmt: skip
def test_two_claims_are_settled_by_what_the_person_feels_or_not_at_all(text: str, emotion: str | None) -> None:
    assert parse_emotion(text) == emotion


def test_no_word_claims_two_classes() -> None:
    assert set(WORDS) == set(CLASSES)
    every = [word for words in WORDS.values() for word in words]
    assert len(every) == len(set(every))
