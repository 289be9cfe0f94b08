"""The controlled world: drawn faces and synthetic voices, of which every cue is known.

Data: `avere_ray.synthetic`, drawn from a seed (`avere-ray synth`). Split: "test", clips with other persons
and other combinations of cues than the training clips, in which shirt, background and music agree with the emotion.
File: `emorealm.json` beside the clips, in EmoReAlM's format with "subtype" and "about_cue". Prompt and metrics:
EmoReAlM's (see `emorealm`); as the sub-types are labelled, `spurious_accuracy`, `hallucination_accuracy` and
`no_hallucination_accuracy` tell which failure is left. A prediction is called `<id>.txt`. There are no released rules.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from avere_ray.evaluation.benchmark import Answers, Benchmark
from avere_ray.evaluation.choices import score_choices
from avere_ray.evaluation.emorealm import EMOREALM, read
from avere_ray.evaluation.scorer import Scorer, Scores
from avere_ray.records import Query


def details(queries: Sequence[Query], answers: Answers) -> Scores:
    """EmoReAlM's figures, as those of the world."""
    return replace(EMOREALM.details(queries, answers), benchmark="world")


WORLD_SCORER = Scorer(name="world", read=read, score=partial(score_choices, "world"))
WORLD = Benchmark(
    name="world",
    load=EMOREALM.load,
    score=EMOREALM.score,
    details=details,
    outcomes=EMOREALM.outcomes,
    options=EMOREALM.options,
    examples=EMOREALM.examples,
)
