"""From judged responses to preference pairs: a chosen response, a spurious and a hallucinated reject, a swapped input.

Rules, in order:

- chosen: the most frequent faithful rollout, else the query's reference (or always the reference, by config). Only
  complete rollouts (end token sampled) of the highest confidence count; ties are broken by the seed.
- rejects: for each kind the most frequent rollout that shows it. An empty place goes to a `wrong_emotion` rollout
  (for choice questions: one with a wrong letter), because what the policy really says teaches more than what it could
  say; its kind is recorded as the first empty one. What is still empty is written: a minimal edit of the chosen
  response, or the other answer to a choice question. Every written reject is held against the rule judge first.
- texts that differ only in case, spacing or punctuation count as one; rejects of very different length are used only
  when there is no other.

A query that gives no pair ends as a Drop with its reason: `no_rollouts`, `no_chosen`, `all_faithful`, `no_reject`.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from avere_ray import prompts
from avere_ray.config import PreferenceConfig
from avere_ray.errors import StageError
from avere_ray.records import (
    Clip,
    Cue,
    CueModality,
    Drop,
    ModalitySwap,
    PreferencePair,
    Query,
    Reject,
    RejectKind,
    Rollout,
    Verdict,
    VerdictLabel,
)
from avere_ray.responses import Citation, Stance, find_cues, is_yes_no, leading_letter, split_choice
from avere_ray.stages import digest
from avere_ray.verdicts import judge_by_rules

MIN_CONFIDENCE = 0.6
"""A faithful verdict below this does not make a chosen response: the rollout cites things that no inventory knows."""

_LABEL_OF = {
    RejectKind.SPURIOUS: VerdictLabel.SPURIOUS_ASSOCIATION,
    RejectKind.HALLUCINATED: VerdictLabel.HALLUCINATION,
}
_GRAVE = (*_LABEL_OF.values(), VerdictLabel.WRONG_EMOTION)
_NUMBER = (("shows", "show"), ("says", "say"), ("tells", "tell"), ("is", "are"), ("suggests", "suggest"))


@dataclass(frozen=True, slots=True)
class _Judged:
    """The rollouts of one query with their verdicts."""

    query: Query
    clip: Clip
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict, ...]
    seed: int

    def texts(self, label: VerdictLabel) -> list[str]:
        """Texts of one label, in order of sampling."""
        return [r.text for r, v in zip(self.rollouts, self.verdicts, strict=True) if v.label is label]


def build_pairs(
    queries: Sequence[Query],
    rollouts_by_query: Mapping[str, Sequence[Rollout]],
    verdicts_by_rollout: Mapping[str, Verdict],
    clips: Mapping[str, Clip],
    swaps: Mapping[str, ModalitySwap | None],
    rules: PreferenceConfig,
    seed: int,
) -> tuple[list[PreferencePair], list[Drop]]:
    """Pairs and drops; every query ends as exactly one of them.

    Args:
        queries: the prompts, in the order the pairs shall have.
        rollouts_by_query: sampled responses by query id.
        verdicts_by_rollout: one verdict for each of them, by rollout id.
        clips: by clip id.
        swaps: mismatched input by query id; None (or missing) makes a pair without modality preference.
        rules: the `preference` section of the config.
        seed: breaks ties and varies what is written.

    Raises:
        StageError: a rollout has no verdict, or a query's clip is unknown.
    """
    pairs: list[PreferencePair] = []
    drops: list[Drop] = []
    for query in queries:
        judged = _judged(query, rollouts_by_query.get(query.query_id, ()), verdicts_by_rollout, clips, seed)
        made = _build_pair(judged, swaps.get(query.query_id), rules)
        if isinstance(made, Drop):
            drops.append(made)
        else:
            pairs.append(made)
    return pairs, drops


def summarise(pairs: Sequence[PreferencePair], drops: Sequence[Drop]) -> dict[str, float]:
    """Counts, and the shares of texts that are on-policy, reference or written (0 to 1)."""
    rejects = [r for p in pairs for r in p.rejects]
    counts: dict[str, float] = {
        "pairs": len(pairs),
        "dropped": len(drops),
        "rejects_spurious": sum(r.kind is RejectKind.SPURIOUS for r in rejects),
        "rejects_hallucinated": sum(r.kind is RejectKind.HALLUCINATED for r in rejects),
        "chosen_on_policy_share": _share(p.chosen_source == "rollout" for p in pairs),
        "chosen_reference_share": _share(p.chosen_source == "reference" for p in pairs),
        "reject_on_policy_share": _share(r.source == "rollout" for r in rejects),
        "reject_written_share": _share(r.source == "written" for r in rejects),
        "both_kinds_share": _share(len({r.kind for r in p.rejects}) == 2 for p in pairs),
        "swap_share": _share(p.swap is not None for p in pairs),
    }
    reasons = Counter(d.reason for d in drops)
    return counts | {f"dropped_{reason}": n for reason, n in sorted(reasons.items())}


def normalise(text: str) -> str:
    """The form in which two texts count as the same: lower case, words only."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def _judged(
    query: Query, rollouts: Sequence[Rollout], verdicts: Mapping[str, Verdict], clips: Mapping[str, Clip], seed: int
) -> _Judged:
    if query.clip_id not in clips:
        raise StageError(f"query {query.query_id} is about clip {query.clip_id}, which is not in the clip table")
    missing = [r.rollout_id for r in rollouts if r.rollout_id not in verdicts]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(rollouts)} rollouts of query {query.query_id} have no verdict, for instance "
            f"{missing[0]}; run the judge again"
        )
    ordered = tuple(sorted(rollouts, key=lambda r: (r.index, r.rollout_id)))
    return _Judged(query, clips[query.clip_id], ordered, tuple(verdicts[r.rollout_id] for r in ordered), seed)


def _build_pair(judged: _Judged, swap: ModalitySwap | None, rules: PreferenceConfig) -> PreferencePair | Drop:
    query = judged.query
    if not judged.rollouts:
        return _drop(query, "no_rollouts", "no response was sampled")
    chosen, source = _choose(judged, rules)
    if not chosen:
        return _drop(query, "no_chosen", "no rollout is faithful and the query has no reference answer")
    rejects = _rejects(judged, chosen, rules)
    if not rejects:
        faithful = all(v.label is VerdictLabel.FAITHFUL for v in judged.verdicts)
        what = "every rollout is faithful" if faithful else "no rollout shows a usable failure"
        return _drop(query, "all_faithful" if faithful else "no_reject", f"{what} and no reject could be written")
    key = digest(query.query_id, chosen, [r.text for r in rejects], dataclasses.asdict(swap) if swap else None)
    return PreferencePair(
        pair_id=f"{query.query_id}~{key[:12]}",
        query_id=query.query_id,
        clip_id=query.clip_id,
        modality=query.modality,
        prompt=query.prompt,
        chosen=chosen,
        chosen_source=source,
        rejects=rejects,
        swap=swap,
    )


def _drop(query: Query, reason: str, message: str) -> Drop:
    return Drop(sample_id=query.query_id, stage="pairs", reason=reason, message=f"query {query.query_id}: {message}")


# Chosen ---------------------------------------------------------------------------------------------------------------


def _choose(judged: _Judged, rules: PreferenceConfig) -> tuple[str, str]:
    """The chosen text and its source; empty when there is none."""
    if rules.chosen == "reference":
        return judged.query.reference, "reference"
    good = [
        (v.confidence, r.text)
        for r, v in zip(judged.rollouts, judged.verdicts, strict=True)
        if v.label is VerdictLabel.FAITHFUL and r.finish_reason == "stop" and v.confidence >= MIN_CONFIDENCE
    ]
    best = [text for confidence, text in good if confidence == max(c for c, _ in good)]
    text = _most_frequent(best, judged)
    return (text, "rollout") if text else (judged.query.reference, "reference")


def _most_frequent(texts: Sequence[str], judged: _Judged) -> str:
    """The text that occurs most often (as first spelled); ties by the seed. Empty for no texts."""
    counts = Counter(normalise(t) for t in texts)
    spelled: dict[str, str] = {}
    for text in texts:
        spelled.setdefault(normalise(text), text.strip())
    return min(spelled.values(), key=lambda t: (-counts[normalise(t)], _tie(judged, t)), default="")


def _tie(judged: _Judged, text: str) -> str:
    return digest(judged.seed, judged.query.query_id, text)


# Rejects --------------------------------------------------------------------------------------------------------------


def _rejects(judged: _Judged, chosen: str, rules: PreferenceConfig) -> tuple[Reject, ...]:
    """One or two rejects, the spurious one first."""
    found: dict[RejectKind, Reject] = {}
    for kind in RejectKind:
        _add(found, kind, judged.texts(_LABEL_OF[kind]), "rollout", chosen, judged)
    wrong = judged.texts(VerdictLabel.WRONG_EMOTION)
    _add_spare(found, [t for t in wrong if _wrong_answer(t, judged.query)], chosen, judged)
    if rules.written_rejects:
        for kind in RejectKind:
            if kind not in found:
                _add(found, kind, _written(kind, judged, chosen), "written", chosen, judged)
    if not found:
        _add_spare(found, wrong, chosen, judged)
    return tuple(found[kind] for kind in RejectKind if kind in found)


def _add(
    found: dict[RejectKind, Reject], kind: RejectKind, texts: Sequence[str], source: str, chosen: str, judged: _Judged
) -> None:
    """Puts the best of the texts into its place, unless it repeats the chosen response or another reject."""
    taken = {normalise(chosen), ""} | {normalise(r.text) for r in found.values()}
    fresh = [t for t in texts if normalise(t) not in taken]
    text = _most_frequent([t for t in fresh if _close(t, chosen)] or fresh, judged)
    if text:
        found[kind] = Reject(kind=kind, text=text, source=source)


def _add_spare(found: dict[RejectKind, Reject], texts: Sequence[str], chosen: str, judged: _Judged) -> None:
    place = next((kind for kind in RejectKind if kind not in found), None)
    if place is not None:
        _add(found, place, texts, "rollout", chosen, judged)


def _wrong_answer(text: str, query: Query) -> bool:
    letter, _ = leading_letter(text, [split_choice(c)[0] for c in query.choices])
    return not query.choices or (letter is not None and letter != query.answer)


def _close(text: str, chosen: str) -> bool:
    """Whether two texts are of similar length: within four words, or half to double."""
    a, b = len(text.split()), len(chosen.split())
    return abs(a - b) <= 4 or b <= 2 * a <= 4 * b


# Written rejects ------------------------------------------------------------------------------------------------------


def _written(kind: RejectKind, judged: _Judged, chosen: str) -> list[str]:
    """Texts with one failure of the kind, as far as the rule judge finds them wrong.

    In a choice question the letter itself may be the graver failure, so there any failure will do.
    """
    query, clip = judged.query, judged.clip
    if not clip.cues:
        return []
    texts = _other_answers(kind, query, clip, chosen) if query.choices else _edits(kind, query, clip, chosen)
    accepted = set(_GRAVE) if query.choices else {_LABEL_OF[kind]}
    return [t for t in texts if _label(t, query, clip) in accepted]


def _label(text: str, query: Query, clip: Clip) -> VerdictLabel:
    rollout = Rollout(
        rollout_id="written",
        query_id=query.query_id,
        clip_id=clip.clip_id,
        index=0,
        text=text,
        token_ids=(),
        finish_reason="stop",
        adapter_version=0,
        seed=0,
    )
    return judge_by_rules(rollout, query, clip).label


def _other_answers(kind: RejectKind, query: Query, clip: Clip, chosen: str) -> list[str]:
    options = dict(split_choice(c) for c in query.choices)
    if not is_yes_no(options.values()):
        return _other_options(kind, query, clip, options, chosen)
    said = {text.strip(" .").lower(): letter for letter, text in options.items()}
    cue = next((c for c in clip.cues if c.name == query.about_cue), None)
    if query.about_cue:
        texts = _other_stress(kind, query, clip, cue, right_is_yes=query.answer == said["yes"])
    else:
        texts = _other_agreement(kind, clip, right_is_yes=query.answer == said["yes"])
    return [_with_letter(text, said) for text in texts]


def _with_letter(text: str, letters: Mapping[str, str]) -> str:
    """The templates say "(A) Yes" and "(B) No"; a query may have them the other way round."""
    words = text[4:]
    return f"({letters['yes' if words.startswith('Yes') else 'no']}) {words}"


def _other_stress(kind: RejectKind, query: Query, clip: Clip, cue: Cue | None, *, right_is_yes: bool) -> list[str]:
    """Against Yes: the cue dismissed (spurious) or denied (hallucinated). Against No: an unfit cue affirmed."""
    if right_is_yes:
        seen = kind is RejectKind.SPURIOUS
        return [prompts.no_answer(dataclasses.replace(cue, present=seen))] if cue is not None else []
    emotion = prompts.shown_emotion(clip, query.modality)
    pool = _unfit(kind, clip, cue.modality if cue is not None else _modalities(query)[0])
    asked = [c for c in pool if c.name == query.about_cue]
    return [prompts.yes_answer(c, emotion) for c in asked or pool]


def _other_agreement(kind: RejectKind, clip: Clip, *, right_is_yes: bool) -> list[str]:
    """Spurious: the face's emotion carried over to the voice. Hallucinated: an emotion in one that is not there."""
    face, voice = clip.face_emotion, clip.voice_emotion
    if not {face, voice} <= set(prompts.EMOTION_ADJECTIVES):
        return []
    if not right_is_yes:
        both = face if kind is RejectKind.SPURIOUS else voice
        return [prompts.agreement_answer(dataclasses.replace(clip, face_emotion=both, voice_emotion=both))]
    if kind is RejectKind.SPURIOUS:
        return []
    others = sorted({e for c in clip.cues for e in c.emotions} & set(prompts.EMOTION_ADJECTIVES) - {face, voice})
    return [prompts.agreement_answer(dataclasses.replace(clip, voice_emotion=e)) for e in others]


def _other_options(kind: RejectKind, query: Query, clip: Clip, options: Mapping[str, str], chosen: str) -> list[str]:
    names = {c.name for m in _modalities(query) for c in _unfit(kind, clip, m)}
    if kind is RejectKind.HALLUCINATED:
        names |= {c.name for c in clip.cues if not c.present}
    texts = []
    for letter, text in options.items():
        cited = {c.cue.name for c in find_cues(text, clip.cues, query.modality) if c.cue is not None}
        if letter != query.answer and cited & names:
            texts.append(f"({letter}) {text}" + ("." if chosen.endswith(".") and not text.endswith(".") else ""))
    return texts


def _edits(kind: RejectKind, query: Query, clip: Clip, chosen: str) -> list[str]:
    """The chosen response with one of its cues exchanged for an unfit one, or with one added when it cites none."""
    cited = [c for c in find_cues(chosen, clip.cues, query.modality) if c.stance is Stance.AFFIRMED]
    texts = []
    for citation in cited:
        for cue in _unfit(kind, clip, citation.cue.modality if citation.cue else "video"):
            if not any(c.cue is not None and c.cue.name == cue.name for c in cited):
                texts.append(_exchange(chosen, citation, cue))
    if not cited:
        stem = chosen.rstrip(" .")
        texts = [
            f"{stem} because of {prompts.definite(c.text)}." for m in _modalities(query) for c in _unfit(kind, clip, m)
        ]
    return texts


def _exchange(text: str, citation: Citation, cue: Cue) -> str:
    """The text with one cited cue replaced, its article and the number of its verb kept in order."""
    before, after = text[: citation.start], text[citation.end :]
    article = re.search(r"\b(a|an|the) $", before, re.IGNORECASE)
    phrase = cue.text
    if article is not None:
        before = before[: article.start()]
        phrase = prompts.definite(cue.text) if article.group(1).lower() == "the" else cue.text
    if not before or before.endswith((". ", "! ", "? ")):
        phrase = phrase[0].upper() + phrase[1:]
    for singular, plural in _NUMBER:
        wanted = plural if prompts.is_plural(cue.text) else singular
        after = re.sub(rf"^ (?:{singular}|{plural})\b", f" {wanted}", after)
    return before + phrase + after


def _unfit(kind: RejectKind, clip: Clip, modality: CueModality) -> list[Cue]:
    pool = prompts.irrelevant_cues if kind is RejectKind.SPURIOUS else prompts.absent_cues
    return pool(clip, modality)


def _modalities(query: Query) -> tuple[CueModality, ...]:
    return ("video", "audio") if query.modality == "audio_video" else (query.modality,)
