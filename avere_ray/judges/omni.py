"""The omni judge: a model that watches the clip verifies each cited cue with yes/no questions, k votes each.

Which cues a response names is read by the grammar of `avere_ray.responses`; whether they are there and whether they
tell how the person feels is asked, about the clip alone, without showing the response: it cannot talk to this judge.
Half of the votes see "(A) Yes (B) No", half "(A) No (B) Yes", so that a habit of choosing the first cancels out.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from avere_ray.judges.findings import Findings, FoundCue, Known, Use, to_verdict
from avere_ray.prompts import EMOTION_ADJECTIVES, definite, is_plural, shown_emotion
from avere_ray.protocols import GenerateFn
from avere_ray.records import Clip, Cue, Modality, Query, Rollout, Verdict
from avere_ray.responses import (
    Citation,
    Reading,
    Stance,
    is_off_topic,
    leading_letter,
    read_response,
    with_aliases,
    yes_or_no,
)
from avere_ray.stages import digest

VERSION = "omni/1"
_MAX_TOKENS = 8
_USE: dict[Stance, Use] = {
    Stance.AFFIRMED: "relied_on", Stance.MENTIONED: "supposed", Stance.DENIED: "denied",
    Stance.DISMISSED: "set_aside", Stance.SUPPOSED: "supposed",
}  # fmt: skip
_HEARD = "cheer chuckle gasp giggle groan growl laugh moan scream shriek sigh sob whimper whisper".split()  # noqa: SIM905
_SEEN = "blush frown glare grimace nod pout shiver shrug smile smirk sneer wince".split()  # noqa: SIM905
_ORDERS = (("Yes", "No"), ("No", "Yes"))


@dataclass(frozen=True, slots=True)
class _Question:
    """One yes/no question about a clip."""

    clip_id: str
    modality: Modality
    words: str

    def query(self, order: tuple[str, str]) -> Query:
        """The question with its choices in an order."""
        choices = (f"(A) {order[0]}", f"(B) {order[1]}")
        return Query(query_id=f"verify/{digest(self.clip_id, self.modality, self.words, order)}", clip_id=self.clip_id,
                     modality=self.modality, task="verify", prompt=f"{self.words} {' '.join(choices)}",
                     choices=choices)  # fmt: skip


class OmniJudge:
    """Implements JudgeFn over a model that watches."""

    def __init__(
        self,
        generate: GenerateFn,
        model: str,
        *,
        votes: int = 5,
        temperature: float = 0.7,
        seed: int = 0,
        lexicon: Sequence[Cue] = (),
    ) -> None:
        """`votes`: per question, both orders together; `lexicon`: cues of the corpus, to recognise their words."""
        self._generate, self.name = generate, f"{VERSION} {model}"
        self._votes, self._temperature, self._seed = votes, temperature, seed
        self._lexicon = tuple(lexicon)

    def __call__(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """One verdict per rollout, in the order given; each question about a clip is asked once."""
        readings = [self._read(r, queries[r.query_id], clips[r.clip_id]) for r in rollouts]
        asked: dict[_Question, None] = {}
        for rollout, reading in zip(rollouts, readings, strict=True):
            found = _questions(reading, rollout, queries[rollout.query_id], clips[rollout.clip_id])
            asked |= dict.fromkeys(found)
        shares = self._ask(list(asked))
        return [
            self._verdict(rollout, reading, queries[rollout.query_id], clips[rollout.clip_id], shares)
            for rollout, reading in zip(rollouts, readings, strict=True)
        ]

    def _read(self, rollout: Rollout, query: Query, clip: Clip) -> Reading:
        cues = with_aliases(tuple(clip.cues), self._lexicon if clip.cues else (*self._lexicon, *common_cues()))
        return read_response(rollout.text, query, cues, any_evidence=not clip.cues)

    def _ask(self, questions: Sequence[_Question]) -> dict[_Question, float]:
        """Share of yes among the votes that can be read, 0 to 1; 0.5 when none can."""
        yes, no = dict.fromkeys(questions, 0), dict.fromkeys(questions, 0)
        for order, n in zip(_ORDERS, (math.ceil(self._votes / 2), self._votes // 2), strict=True):
            if not (n and questions):
                continue
            groups = self._generate([q.query(order) for q in questions], n=n, temperature=self._temperature,
                                    max_tokens=_MAX_TOKENS, seed=self._seed)  # fmt: skip
            for question, votes in zip(questions, groups, strict=True):
                said = [_said_yes(v.text, order) for v in votes]
                yes[question] += said.count(True)
                no[question] += said.count(False)
        return {q: yes[q] / (yes[q] + no[q]) if yes[q] + no[q] else 0.5 for q in questions}

    def _verdict(
        self, rollout: Rollout, reading: Reading, query: Query, clip: Clip, shares: Mapping[_Question, float]
    ) -> Verdict:
        cues = [_found(c, rollout, query, clip, shares) for c in reading.citations]
        claims = [c for c in reading.claims if not c.negated]
        votes = [shares[q] for q in _questions(reading, rollout, query, clip)]
        rights = [_emotion_right(c.emotion, query, clip, shares) for c in claims]
        answered = bool(reading.letters or reading.polarities or reading.citations or reading.claims)
        missed = bool(query.choices) and not (reading.letters or reading.polarities or reading.citations)
        findings = Findings(
            answer="answer" if answered and not missed else "off_topic" if is_off_topic(rollout.text) else "nothing",
            cues=tuple(cues),
            emotion=claims[0].emotion if claims else "",
            emotion_right="no" if "no" in rights else "unknown" if "unknown" in rights else "yes" if rights else "none",
            confidence=min((max(s, 1 - s) for s in votes), default=1.0),
        )
        return to_verdict(findings, rollout, query, clip, self.name)


@functools.cache
def common_cues() -> tuple[Cue, ...]:
    """Expressions that a response may name in a clip without a cue list; whether they are there is asked."""
    return tuple(
        Cue(name=word, modality="audio" if word in _HEARD else "video", present=False,
            text=f"{'an' if word[0] in 'aeiou' else 'a'} {word}", emotions=("any",))
        for word in (*_HEARD, *_SEEN)
    )  # fmt: skip


def _questions(reading: Reading, rollout: Rollout, query: Query, clip: Clip) -> Iterable[_Question]:
    for citation in reading.citations:
        if _USE[citation.stance] != "supposed":
            yield _presence(citation, rollout, clip)
            yield _relevance(citation, rollout, clip)
    if query.about_cue and reading.polarities == (True,) and not reading.citations:
        return
    for claim in reading.claims:
        if not claim.negated and not _labels(query, clip):
            yield _feels(claim.emotion, query, clip)


def _phrase(citation: Citation, rollout: Rollout) -> str:
    return citation.cue.text if citation.cue is not None else rollout.text[citation.start : citation.end].lower()


def _presence(citation: Citation, rollout: Rollout, clip: Clip) -> _Question:
    text, modality = _phrase(citation, rollout), _modality(citation)
    verb = "hear" if modality == "audio" else "see" if modality == "video" else "see or hear"
    return _Question(clip.clip_id, modality, f"Can you {verb} {text} in the clip?")


def _relevance(citation: Citation, rollout: Rollout, clip: Clip) -> _Question:
    text = _phrase(citation, rollout)
    verb = "Do" if is_plural(text) else "Does"
    return _Question(clip.clip_id, _modality(citation), f"{verb} {definite(text)} tell how the person feels?")


def _feels(emotion: str, query: Query, clip: Clip) -> _Question:
    verb = {"video": "look", "audio": "sound"}.get(query.modality, "feel")
    return _Question(
        clip.clip_id, query.modality, f"Does the person {verb} {EMOTION_ADJECTIVES.get(emotion, emotion)}?"
    )


def _modality(citation: Citation) -> Modality:
    return citation.cue.modality if citation.cue is not None else "audio_video"


def _found(
    citation: Citation, rollout: Rollout, query: Query, clip: Clip, shares: Mapping[_Question, float]
) -> FoundCue:
    use, modality = _USE[citation.stance], _modality(citation)
    supposed = use == "supposed"
    return FoundCue(
        span=rollout.text[citation.start : citation.end],
        modality="unknown" if modality == "audio_video" else modality,
        use=use,
        present="unknown" if supposed else _known(shares[_presence(citation, rollout, clip)]),
        relevant="unknown" if supposed else _known(shares[_relevance(citation, rollout, clip)]),
    )


def _known(share: float) -> Known:
    return "yes" if share > 0.5 else "no" if share < 0.5 else "unknown"


def _emotion_right(emotion: str, query: Query, clip: Clip, shares: Mapping[_Question, float]) -> Known:
    """By the clip's labels where it has them, else by the votes."""
    labels = _labels(query, clip)
    if labels:
        return "yes" if emotion in labels else "no"
    return _known(shares[_feels(emotion, query, clip)])


def _labels(query: Query, clip: Clip) -> set[str]:
    senses: tuple[Modality, ...] = ("video", "audio") if query.modality == "audio_video" else (query.modality,)
    return {e for m in senses if (e := shown_emotion(clip, m))}


def _said_yes(text: str, order: tuple[str, str]) -> bool | None:
    letter, _ = leading_letter(text, "AB")
    return order["AB".index(letter)] == "Yes" if letter is not None else yes_or_no(text)
