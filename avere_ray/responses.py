"""What a response says: the answer it gives, the cues it names and what it does with them, the emotions it claims.

Plain grammar over words, no model: negation with its scope ("no tears or clenched fists", "the fists are not
clenched", "tears are absent"), dismissal ("the red shirt says nothing"), synonyms and light stemming, longest wording
first. It knows nothing of right and wrong; `avere_ray.verdicts` judges what is read here.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from avere_ray.errors import InputError
from avere_ray.records import Cue, Modality, Query


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EMOTION_WORDS: dict[str, frozenset[str]] = {
    "happiness": _words("happiness happy happily happier joy joyful joyous cheerful cheerfully delighted delight glad "
                        "pleased elated merry"),
    "sadness": _words("sadness sad sadly sadder unhappy unhappiness sorrow sorrowful grief grieving miserable "
                      "depressed heartbroken gloomy mournful"),
    "anger": _words("anger angry angrily angered angrier mad furious rage enraged fury irritated annoyed outraged"),
    "fear": _words("fear afraid fearful fearfully scared frightened fright terrified terror anxious panicked panic"),
    "surprise": _words("surprise surprised astonished astonishment amazed amazement startled shocked"),
    "disgust": _words("disgust disgusted revolted repulsed revulsion"),
    "neutral": _words("neutral calm calmly emotionless unemotional"),
}  # fmt: skip
"""Words that name an emotion: nouns, adjectives and adverbs."""

EQUIVALENT_WORDS = (
    "smile grin beam smiley", "wide broad big bright beaming", "brow eyebrow", "lower furrow furrowed knit knitted",
    "clench ball balled tighten tight", "fist fists", "tear teary tearful teardrop", "laugh laughter giggle chuckle",
    "sob sobbing", "growl snarl", "gasp gasping", "tremble shaky shake shaking quiver quavering tremulous tremor",
    "rapid fast quick", "mouth lip", "droop droopy downturned sag", "frighten scared terrified fearful frightened",
    "shirt tshirt top sweater jumper", "voice voices speech", "harsh rough", "lively energetic animated vivid",
    "high shrill", "sudden abrupt", "drum drums drumming", "rain raindrops raining", "bird birdsong",
)  # fmt: skip
"""Groups of words that mean the same inside a cue phrase; the first stands for the group."""

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "wide_smile": ("smile",),
    "drooping_mouth": ("mouth turned down", "mouth corners turned down"),
    "lowered_brows": ("frown", "scowl", "brows drawn"),
    "frightened_eyes": ("fear eyes", "panicked eyes"),
    "open_round_mouth": ("open mouth", "round mouth", "jaw dropped"),
    "clapping_hands": ("clapping", "applause", "applauding"),
    "tears": ("tear", "crying", "weeping"),
    "clenched_fists": ("fists",),
    "hands_at_cheeks": ("hands cheeks", "hands face"),
    "raised_palms": ("palms", "raised hands"),
    "slow_low_voice": ("slow voice", "low voice"),
    "loud_harsh_voice": ("loud voice", "harsh voice", "shouting", "yelling"),
    "sudden_high_voice": ("high voice", "sudden voice", "high pitched voice"),
    "rising_high_voice": ("high voice", "rising voice", "high pitched voice"),
    "laughter": ("laughing",),
    "sobbing": ("sobs", "crying", "weeping"),
    "rapid_breathing": ("heavy breathing", "panting", "hyperventilating"),
    "gasp": ("sharp intake breath",),
}
"""Other ways to name a cue, by cue name: content words only, in any order."""

_FILLERS = _words("a an the his her their its is are was were be being been very so really quite on at in of to from "
                     "with pair looking sounding not never or")  # fmt: skip
_ARTICLES = _words("a an the his her their its some any")
_END = frozenset(".;:!?\n")
_CONTRAST = _words("but although though however whereas while yet only just instead merely")
_CAUSE = _words("because since so therefore thus hence")
_JOIN = frozenset({",", "and"})
_SUBJECTS = _words("i we you he she they it there this that these those person man woman speaker")
_VERBS = _words("is are was were see sees hear hears show shows has have sound sounds look looks seem seems say says "
                   "tell tells do does can mean means indicate indicates suggest suggests express expresses reveal "
                   "reveals convey conveys prove proves appear appears feel feels make makes notice")  # fmt: skip
_NEGATORS = _words("no not never without neither nor none nothing nobody lack lacks lacking nowhere hardly")
_DETERMINERS = frozenset({"no", "without"})
_CONCESSIONS = frozenset({"despite", "notwithstanding"})
_SKIPPERS = frozenset({"regardless_of", "ignore", "ignoring", "disregard", "disregarding"})
_ABSENT = _words("absent missing nowhere lacking invisible inaudible nonexistent")
_PERCEIVED = _words("visible present there seen heard shown audible appear exist found displayed in here "
                       "noticeable apparent")  # fmt: skip
_EMPTY = _words("irrelevant unrelated meaningless insignificant nothing coincidental incidental accidental "
                   "unimportant clothing decoration scenery")  # fmt: skip
_LINKS = _words("show mean tell say matter prove indicate suggest express reveal convey contribute support reflect "
                   "relate count explain signal sign evidence related relevant indicator connected linked help because "
                   "bearing link connection relation meaning influence role clue indication point imply cause play "
                   "have affect")  # fmt: skip
_IDIOMS: dict[tuple[str, ...], str] = {
    ("no", "doubt"): "indeed", ("without", "doubt"): "indeed", ("without", "a", "doubt"): "indeed",
    ("without", "question"): "indeed", ("no", "question"): "indeed", ("no", "wonder"): "indeed",
    ("not", "only"): "both", ("not", "just"): "both", ("not", "merely"): "both", ("no", "longer"): "not",
    ("instead", "of"): "without", ("rather", "than"): "without", ("lack", "of"): "without",
    ("absence", "of"): "without", ("free", "of"): "without", ("fail", "to"): "not", ("fails", "to"): "not",
    ("not", "because", "of"): "regardless_of", ("not", "due", "to"): "regardless_of",
    ("apart", "from"): "regardless_of", ("aside", "from"): "regardless_of", ("regardless", "of"): "regardless_of",
    ("irrespective", "of"): "regardless_of", ("not", "without"): "indeed", ("not", "deny"): "indeed",
    ("no", "denying"): "indeed", ("not", "be", "denied"): "indeed", ("not", "be", "ignored"): "indeed",
    ("not", "absent"): "present", ("not", "missing"): "present", ("not", "irrelevant"): "relevant",
    ("because", "of"): "because_of", ("due", "to"): "because_of", ("not", "really"): "not",
    ("nothing", "but"): "indeed", ("in", "spite", "of"): "despite",
}  # fmt: skip
_FACE = _words("face facial expression")
_VOICE = _words("voice vocal speech tone")
_SEEING = _words("look looks looking see sees visually visible")
_HEARING = _words("sound sounds sounding hear hears audible")
_REFERENTS = _words("person man woman girl boy lady guy speaker someone")
_GENERIC = (_FILLERS | _ARTICLES | _SUBJECTS | _VERBS | _FACE | _VOICE | _REFERENTS | _words(
    "body eyes mouth hands clip video audio sound emotion emotions way how what both indeed clear clearly also too not "
    "no nothing much evidence sign signs cue cues that which"))  # fmt: skip


class Stance(StrEnum):
    """What a response does with a cue it names."""

    AFFIRMED = "affirmed"
    """Relies on it."""
    MENTIONED = "mentioned"
    """Says in passing that it is there ("the man in the red shirt")."""
    DISMISSED = "dismissed"
    """Says that it does not matter."""
    DENIED = "denied"
    """Says that it is not there."""


@dataclass(frozen=True, slots=True)
class Citation:
    """One cue named in a text: where, and what the text does with it."""

    cue: Cue | None
    """The cue, or None when the words match no known cue."""
    start: int
    """Offset of its first character."""
    end: int
    """Offset behind its last character."""
    stance: Stance
    """What the text does with it."""
    about: tuple[str, ...] = ()
    """For a dismissed cue: the emotions it is said not to show; empty when none is named."""


@dataclass(frozen=True, slots=True)
class _Token:
    word: str
    canon: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One emotion named in a text."""

    emotion: str
    """Its noun, for instance "anger"."""
    negated: bool
    """Whether the text says that it is not felt."""
    sources: frozenset[Modality]
    """Whether it is said of the face ("video"), the voice ("audio"), both, or (empty) of the person."""
    explicit: bool
    """Whether a noun says so ("face", "voice") rather than a verb ("looks", "sounds")."""
    with_cue: bool
    """For a negated emotion: it is a cue that does not show it, not the person who does not feel it."""

    @property
    def about_both(self) -> bool:
        """Whether it is said of face and voice alike."""
        return len(self.sources) > 1


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is read in one response."""

    letters: tuple[str, ...]
    """Letters of choices it names, the leading one first."""
    polarities: tuple[bool, ...]
    """True for yes, False for no, by letter and by word; both when they contradict each other."""
    citations: tuple[Citation, ...]
    """Cues it names, in order; those that match no known cue last."""
    claims: tuple[Claim, ...]
    """Emotions it names, in order."""


# Reading --------------------------------------------------------------------------------------------------------------


def read_response(text: str, query: Query, cues: Sequence[Cue]) -> Reading:
    """Reads one response to a query, in terms of the given cues.

    Raises:
        InputError: a choice of the query has no letter.
    """
    options = dict(split_choice(c) for c in query.choices)
    letter, start = leading_letter(text, options)
    others = [m for m in re.findall(r"\(([A-H])\)", text[start:]) if m in options]
    letters = tuple(dict.fromkeys(([letter] if letter else []) + others))
    tokens = _tokens(text, start)
    word = yes_or_no(text[start:])
    skip = _answer_particle(tokens) if word is not None else 0
    tokens = tokens[skip:]
    emotions = _emotion_map(cues)
    citations = _citations(tokens, cues, emotions, query.modality)
    claims = _claims(tokens, citations, emotions)
    return Reading(letters, _polarities(letters, options, word), tuple(citations), tuple(claims))


def _polarities(letters: Sequence[str], options: dict[str, str], word: bool | None) -> tuple[bool, ...]:
    found = [] if word is None else [word]
    if is_yes_no(options.values()):
        found += [options[letter].strip(" .").lower() == "yes" for letter in letters]
    return tuple(dict.fromkeys(found))


# Letters and yes/no ---------------------------------------------------------------------------------------------------


def split_choice(choice: str) -> tuple[str, str]:
    """Letter and text of a choice: "(A) Yes" gives ("A", "Yes").

    Raises:
        InputError: the choice does not begin with a letter A to H in brackets or with a dot.
    """
    match = re.match(r"\s*[(\[]?([A-Ha-h])[)\].:]\s*(.*)$", choice, re.DOTALL)
    if match is None:
        raise InputError(f'choice {choice!r} has no letter; choices look like "(A) Yes"')
    return match.group(1).upper(), match.group(2).strip()


def is_yes_no(texts: Iterable[str]) -> bool:
    """Whether the choices are just Yes and No."""
    return {t.strip(" .").lower() for t in texts} == {"yes", "no"}


_LEAD = re.compile(
    r"\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*)?", re.IGNORECASE
)
_LETTER = re.compile(
    r"[(\[*]*([A-Ha-h])(?:\s*[)\]*]+[.:,]?|[.:,)](?=\s|$)|(?=\s*$)|(?=\s*\n)|(?=\s+(?:yes|no)\b))", re.IGNORECASE
)


def leading_letter(text: str, letters: Iterable[str]) -> tuple[str | None, int]:
    """The letter a response opens with, and the offset of the words behind it.

    "(B) No", "b.", "[C]", "B: ...", "The answer is (D)" and "A yes" open with a letter; "A man smiles" does not.
    """
    lead = _LEAD.match(text)
    start = lead.end() if lead else 0
    while start > 0 and text[start - 1] in "([*":
        start -= 1
    match = _LETTER.match(text, start)
    if match is None and start:
        match = _LETTER.match(text)
    if match is None:
        match = re.compile(r"([B-H])\s").match(text, start)
    if match is None or match.group(1).upper() not in set(letters):
        return None, 0
    return match.group(1).upper(), match.end()


def yes_or_no(text: str) -> bool | None:
    """True for yes, False for no, None for neither or both: as first word, or set off by punctuation."""
    words = re.sub(
        r"\b(?:no|without(?: a)?) (?:doubt|question|wonder|denying)\b", "indeed", text.lower().replace("’", "'")
    )
    first = re.match(r"\W*(yes|no)\b(?!\s+(?:one|longer)\b)", words)
    found = {first.group(1)} if first else set()
    found |= set(re.findall(r"(?:^|[^\w'-])(yes|no)(?=\s*(?:[.,;:!)\n]|$))", words))
    found |= {"yes", "no"} if re.match(r"\W*(?:yes\s+(?:and|or)\s+no|no\s+(?:and|or)\s+yes)\b", words) else set()
    return found == {"yes"} if len(found) == 1 else None


def _answer_particle(tokens: Sequence[_Token]) -> int:
    """How many opening tokens are a bare "yes" or "no" and not the determiner of a noun."""
    words = [t.word for t in tokens[:3]]
    lead = next((i for i, w in enumerate(words) if w.isalpha()), 0)
    if not words or words[lead] not in {"yes", "no"}:
        return 0
    behind = words[lead + 1] if len(words) > lead + 1 else "."
    free = words[lead] == "yes" or not behind.isalpha() or behind in _SUBJECTS | _ARTICLES | _NEGATORS
    return lead + 1 if free else 0


# Words ----------------------------------------------------------------------------------------------------------------


def _tokens(text: str, start: int = 0) -> list[_Token]:
    """Words and punctuation with their offsets; "isn't" becomes two words, idioms become one."""
    tokens: list[_Token] = []
    plain = text.replace("’", "'").replace("‘", "'")
    for match in re.finditer(r"[^\W_]+(?:'[^\W_]+)?|[.,;:!?\n]", plain[start:]):
        word, at, end = match.group().lower(), start + match.start(), start + match.end()
        parts = _contraction(word)
        tokens += [_Token(part, canonical(part), at, end) for part in parts]
    return _merge_idioms(tokens)


def _contraction(word: str) -> list[str]:
    if word == "cannot":
        return ["can", "not"]
    if word.endswith("n't") and len(word) > 3:
        return [word[:-3], "not"]
    if word in {"isnt", "arent", "dont", "doesnt", "cant", "wasnt", "werent", "didnt"}:
        return [word[:-2], "not"]
    return [word.split("'")[0]] if "'" in word else [word]


def _merge_idioms(tokens: list[_Token]) -> list[_Token]:
    merged: list[_Token] = []
    at = 0
    while at < len(tokens):
        for size in (3, 2):
            words = tuple(t.word for t in tokens[at : at + size])
            if words in _IDIOMS:
                merged.append(_Token(_IDIOMS[words], _IDIOMS[words], tokens[at].start, tokens[at + size - 1].end))
                at += size
                break
        else:
            merged.append(tokens[at])
            at += 1
    return merged


@functools.lru_cache(maxsize=65536)
def canonical(word: str) -> str:
    """The form under which a word is compared: lower case, stemmed, first of its group of equivalents."""
    groups = _equivalents()
    stem = _stem(word.lower())
    return groups.get(word.lower()) or groups.get(stem) or stem


@functools.cache
def _equivalents() -> dict[str, str]:
    table: dict[str, str] = {}
    for group in EQUIVALENT_WORDS:
        head, *rest = group.split()
        table.update({form: _stem(head) for w in (head, *rest) for form in (w, _stem(w))})
    return table


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


@functools.lru_cache(maxsize=8192)
def _phrases(name: str, text: str) -> tuple[frozenset[str], ...]:
    """Every way to name a cue, as sets of canonical content words."""
    texts = (text, text.partition(" in the ")[0], name.replace("_", " "), *PARAPHRASES.get(name, ()))
    bags = [frozenset(t.canon for t in _tokens(x) if t.word not in _FILLERS) for x in texts]
    return tuple(dict.fromkeys(b for b in bags if b))


@functools.cache
def _emotion_words() -> dict[str, str]:
    return {word: emotion for emotion, words in EMOTION_WORDS.items() for word in words}


def _emotion_map(cues: Sequence[Cue]) -> dict[str, str]:
    table = dict(_emotion_words())
    for emotion in {e for c in cues for e in c.emotions}:
        table.setdefault(emotion, emotion)
    return table


def emotions_in(text: str, cues: Sequence[Cue]) -> list[str]:
    table = _emotion_map(cues)
    return [table[t.word] for t in _tokens(text) if t.word in table]


# Cues and claims in a text --------------------------------------------------------------------------------------------


def find_cues(text: str, cues: Sequence[Cue], modality: str = "audio_video") -> list[Citation]:
    """Cues named in a text, in order, with what the text does with each.

    The longest wording wins. Words that fit two cues ("crying") mean the one of the asked modality, else a present one.
    """
    return [c for c in _citations(_tokens(text), cues, _emotion_map(cues), modality) if c.cue is not None]


def _citations(
    tokens: Sequence[_Token], cues: Sequence[Cue], emotions: dict[str, str], modality: str
) -> list[Citation]:
    spans = _spans(tokens, cues, modality)
    found = [_cite(tokens, span, cue, emotions) for span, cue in spans]
    return found + _unknown(tokens, spans, emotions)


def _spans(tokens: Sequence[_Token], cues: Sequence[Cue], modality: str) -> list[tuple[tuple[int, int], Cue]]:
    words = {t.canon for t in tokens}
    hits = [(bag, cue) for cue in cues for bag in _phrases(cue.name, cue.text) if bag <= words]
    hits.sort(key=lambda h: (-len(h[0]), h[1].modality != modality, not h[1].present))
    taken: set[int] = set()
    spans: list[tuple[tuple[int, int], Cue]] = []
    for bag, cue in hits:
        for begin in range(len(tokens)):
            end = _window(tokens, begin, bag)
            if end is not None and not taken & set(range(begin, end)):
                taken |= set(range(begin, end))
                spans.append(((begin, end), cue))
    return sorted(spans, key=lambda s: s[0])


def _window(tokens: Sequence[_Token], begin: int, bag: frozenset[str]) -> int | None:
    """End of the shortest run from `begin` that holds all words of the bag and otherwise only fillers."""
    missing, fillers = set(bag), 0
    for at in range(begin, min(begin + len(bag) + 4, len(tokens))):
        token = tokens[at]
        if token.canon in missing:
            missing.discard(token.canon)
            if not missing:
                return at + 1
        elif at == begin or not (token.word in _FILLERS or (len(bag) > 2 and token.word in _JOIN)):
            return None
        else:
            fillers += 1
    return None


def _cite(tokens: Sequence[_Token], span: tuple[int, int], cue: Cue, emotions: dict[str, str]) -> Citation:
    begin, end = span
    start, stop = tokens[begin].start, tokens[end - 1].end
    inside = any(t.word in {"not", "never"} for t in tokens[begin:end])
    left = Stance.DENIED if inside else _left(tokens, begin, end)
    if left is not None:
        return Citation(cue, start, stop, left)
    right, about = _right(tokens, begin, end, emotions)
    if right is not None:
        return Citation(cue, start, stop, right, about)
    referring = not cue.emotions and _refers(tokens, begin)
    return Citation(cue, start, stop, Stance.MENTIONED if referring else Stance.AFFIRMED)


def _left(tokens: Sequence[_Token], begin: int, end: int) -> Stance | None:
    """What is done with a phrase by the words before it: DENIED, DISMISSED, MENTIONED ("despite ..."), else None."""
    fresh = False
    for at in range(begin - 1, -1, -1):
        word, between = tokens[at].word, tokens[at + 1 : begin]
        if word in _SKIPPERS or word in _CONCESSIONS:
            return Stance.DISMISSED if word in _SKIPPERS else Stance.MENTIONED
        if word in _NEGATORS:
            verb = any(t.word in _VERBS for t in between) and not any(t.word == "that" for t in between)
            ended = word in _DETERMINERS and (fresh or verb)
            contrast = word == "not" and all(t.word in _ARTICLES for t in between)
            return None if ended else Stance.DISMISSED if contrast else Stance.DENIED
        if word in _END or word in _CONTRAST or word in _CAUSE or word in {"with", "because_of", "indeed"}:
            return None
        if word in _JOIN:
            if any(t.word in _SUBJECTS or t.word in _VERBS for t in between):
                return None
            article = bool(between) and between[0].word in _ARTICLES
            if article and _verb_follows(tokens, begin, end):
                return None
            fresh = fresh or article
    return None


def _verb_follows(tokens: Sequence[_Token], begin: int, end: int) -> bool:
    inside = any(t.word in _VERBS for t in tokens[begin:end])
    return inside or (end < len(tokens) and tokens[end].word in _VERBS)


def _right(tokens: Sequence[_Token], begin: int, end: int,
           emotions: dict[str, str]) -> tuple[Stance | None, tuple[str, ...]]:  # fmt: skip
    """DENIED or DISMISSED when the words behind a cue negate it, with the emotions named there."""
    stop = _predicate_end(tokens, begin, end)
    words = [t.word for t in tokens[end:stop]]
    forms = [{t.word, t.canon} for t in tokens[end:stop]]
    about = tuple(emotions[w] for w in words if w in emotions)
    for at, word in enumerate(words):
        near = {form for pair in forms[at + 1 : at + 6] for form in pair}
        if word in _ABSENT or (word in {"not", "never"} and near & _PERCEIVED and not near & _STEMMED_LINKS):
            return Stance.DENIED, ()
        no_link = word in {"not", "never"} or (word == "no" and any(w in _VERBS for w in words[:at]))
        if word in _EMPTY or (no_link and near & _STEMMED_LINKS):
            return _unless_corrected(tokens, stop, emotions), about
    return None, ()


_STEMMED_LINKS = _LINKS | {_stem(w) for w in _LINKS}


def _unless_corrected(tokens: Sequence[_Token], stop: int, emotions: dict[str, str]) -> Stance | None:
    """ "do not show sadness but anger" relies on the cue after all."""
    behind = [t.word for t in tokens[stop : stop + 4]]
    corrected = bool(behind) and behind[0] == "but" and any(w in emotions for w in behind)
    return None if corrected else Stance.DISMISSED


def _predicate_end(tokens: Sequence[_Token], begin: int, end: int) -> int:
    """Where the clause ends whose subject or object the cue is."""
    subject = _is_subject(tokens, begin)
    verb = False
    for at in range(end, len(tokens)):
        word = tokens[at].word
        if word in _END or (word in _CONTRAST and word not in {"only", "just", "merely"}) or word in _CAUSE:
            return at
        if word in {",", "and", "or"} and (verb or not subject) and not (word == "," and _relative(tokens, at)):
            return at
        verb = verb or word in _VERBS
    return len(tokens)


def _relative(tokens: Sequence[_Token], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1].word in {"which", "that"}


def _is_subject(tokens: Sequence[_Token], begin: int) -> bool:
    for at in range(begin - 1, -1, -1):
        word = tokens[at].word
        if word in _END or word in _CONTRAST or word in _CAUSE:
            return True
        if word in _VERBS or word in {"with", "because_of"}:
            return False
    return True


def _refers(tokens: Sequence[_Token], begin: int) -> bool:
    """ "the man in the red shirt": the cue only says who is meant."""
    words = [t.word for t in tokens[max(0, begin - 3) : begin] if t.word not in _ARTICLES]
    return len(words) >= 2 and words[-1] in {"in", "wearing", "with"} and words[-2] in _REFERENTS


def _unknown(tokens: Sequence[_Token], spans: Sequence[tuple[tuple[int, int], Cue]],
             emotions: dict[str, str]) -> list[Citation]:  # fmt: skip
    """Things cited as evidence that match no known cue: behind "because of", "see" and "hear"."""
    taken = {i for (begin, end), _ in spans for i in range(begin, end)}
    found = []
    for at, token in enumerate(tokens):
        if token.word not in {"because_of", "see", "hear"}:
            continue
        run = []
        for i in range(at + 1, len(tokens)):
            if tokens[i].word in _END or tokens[i].word in _JOIN or tokens[i].word in _CONTRAST:
                break
            run.append(i)
        content = [i for i in run if tokens[i].word not in _GENERIC]
        known = taken & set(run) or any(tokens[i].word in emotions or tokens[i].word in _NEGATORS for i in run)
        if content and not known:
            found.append(Citation(None, tokens[content[0]].start, tokens[content[-1]].end, Stance.AFFIRMED))
    return found


def _claims(tokens: Sequence[_Token], citations: Sequence[Citation], emotions: dict[str, str]) -> list[Claim]:
    claims: list[Claim] = []
    previous = 0
    for at, token in enumerate(tokens):
        if token.word not in emotions or any(c.start <= token.start < c.end for c in citations if c.cue):
            continue
        sources, explicit = _sources(tokens, previous, at)
        previous = at + 1
        if _in_dismissal(tokens, at, citations):
            continue
        negated = _left(tokens, at, at + 1) in {Stance.DENIED, Stance.DISMISSED}
        with_cue = negated and _cue_in_clause(tokens, at, citations)
        claims.append(Claim(emotions[token.word], negated, sources, explicit, with_cue))
    return claims


def _sources(tokens: Sequence[_Token], previous: int, at: int) -> tuple[frozenset[Modality], bool]:
    """Face, voice or both, as far as the words around an emotion say; and whether a noun says it."""
    behind = next((t.word for t in tokens[at + 1 : at + 2]), "")
    if behind in _FACE or behind in _VOICE:
        return frozenset({"video" if behind in _FACE else "audio"}), True
    before: list[str] = []
    for token in reversed(tokens[previous:at]):
        if token.word in _END:
            break
        before.append(token.word)
    nouns = _modalities(before, _FACE, _VOICE)
    verbs = _modalities(before, _SEEING, _HEARING)
    return nouns or verbs, bool(nouns)


def _modalities(words: Sequence[str], video: frozenset[str], audio: frozenset[str]) -> frozenset[Modality]:
    found: list[Modality] = []
    found += ["video"] if video & set(words) else []
    found += ["audio"] if audio & set(words) else []
    return frozenset(found)


def _in_dismissal(tokens: Sequence[_Token], at: int, citations: Sequence[Citation]) -> bool:
    """Whether an emotion is only named as what a dismissed cue does not show."""
    for citation in citations:
        if citation.stance is Stance.DISMISSED and citation.end <= tokens[at].start:
            between = [t.word for t in tokens if citation.end <= t.start < tokens[at].start]
            if not any(w in _END or w in _CONTRAST or w in _CAUSE or w in _JOIN for w in between):
                return True
    return False


def _cue_in_clause(tokens: Sequence[_Token], at: int, citations: Sequence[Citation]) -> bool:
    for i in range(at - 1, -1, -1):
        if tokens[i].word in _END or tokens[i].word in _CONTRAST or tokens[i].word in _CAUSE:
            return False
        if any(c.start <= tokens[i].start < c.end for c in citations):
            return True
    return False
