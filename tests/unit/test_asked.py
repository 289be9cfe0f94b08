"""What a question asks about, read from its words: right where the words say it, unsure where they do not."""

import pytest

from avere_ray.asked import SURE_ENOUGH, asked_modality
from avere_ray.prompts import all_queries
from avere_ray.synthetic.clips import CorpusSpec, plan_scenes
from avere_ray.synthetic.scene import clip_of


@pytest.mark.parametrize(
    ("prompt", "modality", "sure"),
    [
        ("How does the man's facial expression convey his emotional state?", "video", True),
        ("Is the man displaying a clenched fist as a sign of his anger in this video?", "video", True),
        ("Does the yellow shirt contribute to the happiness conveyed in the video?", "video", True),
        ("What in the audio suggests anger?", "audio", True),
        ("How does the woman's tone of voice show sadness?", "audio", True),
        ("Does the background music show fear?", "audio_video", False),
        ("Do the audio and video agree on the emotion?", "audio_video", True),
        ("Which visual and vocal cues show fear?", "audio_video", True),
        ("Does her facial expression match what she says?", "video", False),
        ("Describe the emotion of the person in the video in one word.", "audio_video", False),
        ("What is he feeling? (A) His loud voice (B) His smile", "audio_video", False),
        ("", "audio_video", False),
    ],
)
def test_questions_as_people_ask_them(prompt: str, modality: str, sure: bool) -> None:
    asked = asked_modality(prompt)
    assert (asked.modality, asked.confidence >= SURE_ENOUGH) == (modality, sure), asked.why


def test_the_rules_agree_with_every_template_where_they_are_sure() -> None:
    scenes = plan_scenes(CorpusSpec(seed=1, train_clips=20, test_clips=20, bias=0.5))
    queries = [q for s in scenes for q in all_queries(clip_of(s, "u"), 0)]
    asked = [(q, asked_modality(q.prompt)) for q in queries]
    sure = [(q, a) for q, a in asked if a.confidence >= SURE_ENOUGH]
    assert [(q.prompt, a) for q, a in sure if a.modality != q.modality] == []
    assert len(sure) > len(queries) / 2
