"""One word per emotion: the labels of many corpora brought to the nouns used here.

Two labels mean the same emotion when their canonical words are equal; a label that no table knows stays itself, in
lower case, so that nothing is thrown away.
"""

_WORDS: dict[str, str] = {
    "happiness": "happiness happy joy joyful joyous hap",
    "sadness": "sadness sad sorrow sorrowful",
    "anger": "anger angry ang angered mad",
    "fear": "fear fearful afraid scared fea frightened",
    "surprise": "surprise surprised sur surprising",
    "disgust": "disgust disgusted dis disgusting",
    "neutral": "neutral neu neutrality",
    "calm": "calm calmness",
    "contempt": "contempt contemptuous",
    "anxiety": "anxiety anxious",
    "helplessness": "helplessness helpless",
    "disappointment": "disappointment disappointed",
    "worry": "worry worried worries",
}
_CANONICAL = {word: noun for noun, words in _WORDS.items() for word in words.split()}

KNOWN_EMOTIONS = tuple(_WORDS)
"""The nouns that labels are brought to; other labels stay as they are."""


def canonical_emotion(label: str) -> str:
    """The noun for a label ("Happy" -> "happiness"); an unknown label in lower case; "" for an empty one."""
    word = " ".join(label.lower().split())
    return _CANONICAL.get(word, word)
