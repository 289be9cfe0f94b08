"""The rules of the scorers released with AVERE, to the letter, so that published figures can be reproduced.

They are kept apart because they are not good rules: a letter anywhere in a response counts, "no" inside "know" drops a
sentence, "angry" and "sad" name no emotion, and missing responses are skipped. Rules and word lists are facts of the
released files `evaluate_emorealm.py`, `evaluate_emotion_dfew.py` and their neighbours; the code is written anew.
"""

import re
from collections.abc import Sequence

import numpy as np

CLASS_ORDER = ("happiness", "sadness", "surprise", "anger", "neutral", "disgust", "fear")
"""Order in which the classes are tried; ties go to the first."""

_WORDS = {
    "happiness": "happiness happy smiling smile pleasant content contentment relaxed relaxation cheerful joy amusement "
    "amused positivity positive lightheartedness joyful friendly warmth bright crinkle gentle exuberant crow duchenne "
    "ecstatic crinkled contented pleasure mirth sparkling",
    "neutral": "neutral neutrality calm contemplative concerned thoughtful focused solemn mild composed serene placid "
    "collected stoic serious attentive pensive unperturbed steady meditative detached reserved introspective "
    "deliberate observant unmoved tranquil unemotional unexpressive seriousness placidity unreadable normal unmoving "
    "expressionless pensiveness",
    "surprise": "surprise surprised startled puzzled astonishment disbelief wonder curiosity curious confusion "
    "bewilderment skepticism excitement uncertainty unexpectedness surprising suddenness startling abruptly amazement "
    "expectant astonishing",
    "fear": "fear shock anxiety apprehension tension panic alertness focus worry alarm curiosity contemplation threat "
    "frightening terror fright danger vulnerability flight dread darting trembling dilated threatened stimulus gasping "
    "quivering",
    "disgust": "disgust distaste disgusted discomfort displeasure displeased disapproval disdain contempt revulsion "
    "aversion rejection repulsive unpleasant distasteful smell",
    "anger": "anger mad irate outraged agitation irritated enraged annoyed incensed serious frustration displeased "
    "stern displeasure tension rage simmering irritation fury suppressed fierce resentment shouting snarling annoyance "
    "hostile hostility yelling restraint",
    "sadness": "sadness crying distress concern discomfort anguish somber downcast melancholy melancholic despair sob "
    "weariness weeping quivering hopelessness trembles",
}
RELEASED_WORDS: dict[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in _WORDS.items()}
"""Words that name each class."""
NEGATIVE = ("not", "no", "isn't ", "nothing", "cannot", "won't", "shouldn't", "neither", "nor")
"""Substrings that drop a sentence."""

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")
_FIRST = re.compile(r"(.*?)[.!?]")


def letter_matches(response: str, gold: str) -> bool:
    """Whether the right letter occurs as a word anywhere in a response, which is then counted as right."""
    return re.search(rf"\b[\(\[]?{re.escape(gold)}[\)\]\.\:]?\b", response.strip().lower(), re.IGNORECASE) is not None


def described_emotion(response: str, classes: Sequence[str] = CLASS_ORDER) -> str | None:
    """The class a description is counted as, or None where the released code fails and skips the sample.

    It fails on an empty response and on a line break before the first full stop. Otherwise every response gets a class:
    the first listed word of the first sentence, else the class with most words in the rest, else the first class.
    """
    text = response.strip().lower()
    if not text:
        return None
    text = text if text.endswith(".") else text + "."
    kept = " ".join(s for s in _SENTENCE_END.split(text) if not any(word in s for word in NEGATIVE)) or text
    first = _FIRST.match(kept)
    if first is None:
        return None
    for word in re.findall(r"\b\w+\b", first.group(1)):
        for name in classes:
            if word in RELEASED_WORDS[name]:
                return name
    rest = re.findall(r"\b\w+\b", re.sub(r"^(.*?)[.!?]", "", kept))
    hits = {name: sum(word in RELEASED_WORDS[name] for word in rest) for name in classes}
    return max(hits, key=lambda name: hits[name])


def class_metrics(gold: Sequence[str], said: Sequence[str], *, f1: str) -> dict[str, float]:
    """Shares (0 to 1) as the released scorers report them; `f1` is "macro" or "weighted".

    The classes are those that occur as gold or as said; one that is only said counts in the macro means, with recall
    and F1 0. Keys: overall_accuracy, overall_f1 (or overall_f1_weighted), unweighted_avg_recall, weighted_avg_recall,
    and metrics_per_class.<class>.{precision, recall, f1_score, accuracy}.
    """
    names = sorted({*gold, *said})
    at = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    np.add.at(table, ([at[g] for g in gold], [at[s] for s in said]), 1)
    right, support, named = table.diagonal(), table.sum(1), table.sum(0)
    recalls = np.where(support > 0, right / np.maximum(support, 1), 0.0)
    precisions = np.where(named > 0, right / np.maximum(named, 1), 0.0)
    scores = 2 * right / np.maximum(support + named, 1)
    weighted = f1 == "weighted"
    metrics = {
        "overall_accuracy": float(right.sum() / support.sum()),
        "overall_f1_weighted" if weighted else "overall_f1": float(
            np.average(scores, weights=support) if weighted else scores.mean()
        ),
        "unweighted_avg_recall": float(recalls.mean()),
        "weighted_avg_recall": float(np.average(recalls, weights=support)),
    }
    for i, name in enumerate(names):
        own = {"precision": precisions[i], "recall": recalls[i], "f1_score": scores[i]}
        own["accuracy"] = recalls[i] if support[i] else np.nan
        metrics |= {f"metrics_per_class.{name}.{key}": float(value) for key, value in own.items()}
    return metrics
