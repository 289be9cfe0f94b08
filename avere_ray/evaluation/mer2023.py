"""MER2023 test3: the emotion of a person in Chinese film and television, five classes.

Data: Lian et al., ACM MM 2023; under the MER licence. Split: `test_labels/test3-label.csv` (columns name, discrete:
happy, sad, neutral, angry, surprise); "worried" is left out, as the paper (arXiv 2602.07054) does. Prompt: `PROMPT` of
`emotion_scores`. Metric: weighted F1 (the site's "MER2023 F1"), beside WAR, UAR and macro-F1. A prediction is called
`<name>.txt`. Published training sets overlap with the MER series, so that "zero-shot" is less sure here than elsewhere.
Released rules: `evaluate_emotion_mer2023_test3.py`, five classes only, shares of 1.
"""

from collections import Counter
from functools import partial
from pathlib import Path

from avere_ray.evaluation.emotion_scores import score_emotions, score_emotions_released
from avere_ray.evaluation.predictions import read_rows
from avere_ray.evaluation.released import CLASS_ORDER
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Scorer, unique

LABELS = {"happy": "happiness", "sad": "sadness", "neutral": "neutral", "angry": "anger", "surprise": "surprise"}
"""Class by the word in the file."""
CLASSES = tuple(LABELS.values())


def read(path: Path, options: ReadOptions) -> Annotations:
    """Samples of a label file.

    Raises:
        InputError: the file is missing or is no such table.
    """
    rows = read_rows(path, ("name", "discrete"))
    left_out = Counter(row["discrete"] or "(empty)" for row in rows if row["discrete"] not in LABELS)
    items = [
        Item(sample_id=row["name"], gold=LABELS[row["discrete"]], task="mer2023")
        for row in rows
        if row["discrete"] in LABELS
    ]
    return Annotations(items=unique(items, path), left_out=dict(left_out))


MER2023 = Scorer(
    name="mer2023",
    read=read,
    score=partial(score_emotions, "mer2023", CLASSES),
    legacy=partial(score_emotions_released, "mer2023", CLASS_ORDER[:5], "weighted"),
)
