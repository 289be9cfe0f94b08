"""From judged responses to preference pairs: a chosen response, a spurious and a hallucinated reject, a swapped input.

Rules, in order:

- chosen: the most frequent faithful rollout, else the query's reference (or always the reference, by config). Only
  complete rollouts (end token sampled) of the highest confidence count; ties are broken by the seed.
- rejects: for each kind the most frequent rollout that shows it. An empty place goes to a `wrong_emotion` rollout
  (for choice questions: one with a wrong letter), because what the policy really says teaches more than what it could
  say; its kind is recorded as the first empty one. What is still empty is written: by rules (`avere_ray.edits`), or
  by a model (`to_write` says what is needed), and marked so.
- texts that say the same (`avere_ray.likeness`) count as one. Rejects of very different length are used only when there
  is no other, and up to a limit (`preference.max_length_ratio`).
- swapped input: left out where the chosen response would be right about it too ("no, there is no laugh" about a clip
  that has none either), since the modality term would then train against a right answer (`preference.check_swaps`).
- selection: both kinds only, a least margin, hard queries only. Pairs that repeat an earlier one are left out.

A query that gives no pair ends as a Drop with its reason: `no_rollouts`, `not_hard`, `no_chosen`, `all_faithful`,
`no_reject`, `one_kind`, `low_margin`, `duplicate`.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from avere_ray import edits
from avere_ray.config import PreferenceConfig
from avere_ray.errors import StageError
from avere_ray.judges.writing import WriteRequest
from avere_ray.likeness import close_in_length, length_ratio, normalise, saying, word_share
from avere_ray.modality import as_shown
from avere_ray.records import (
    Clip,
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
from avere_ray.responses import find_cues, leading_letter, split_choice
from avere_ray.stages import digest
from avere_ray.verdicts import judge_text

MIN_CONFIDENCE = 0.6
"""A faithful verdict below this does not make a chosen response: the rollout cites things that no inventory knows."""

_LABEL_OF = {
    RejectKind.SPURIOUS: VerdictLabel.SPURIOUS_ASSOCIATION,
    RejectKind.HALLUCINATED: VerdictLabel.HALLUCINATION,
}
Written = Mapping[tuple[str, RejectKind], Sequence[str]]
"""Texts written elsewhere, by query id and kind."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """The rollouts of one query with their verdicts."""

    query: Query
    clip: Clip
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict, ...]
    rules: PreferenceConfig
    written: Written
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
    written: Written | None = None,
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
        written: rejects that a model wrote, see `to_write`; they are used where neither rollouts nor rules give any.

    Raises:
        StageError: a rollout has no verdict, or a query's clip is unknown.
    """
    pairs: list[PreferencePair] = []
    drops: list[Drop] = []
    seen: dict[tuple[str, ...], str] = {}
    for query in queries:
        judged = _judged(query, rollouts_by_query, verdicts_by_rollout, clips, rules, seed, written or {})
        made = _build_pair(judged, swaps.get(query.query_id), clips)
        if isinstance(made, PreferencePair):
            words = (made.clip_id, made.prompt, saying(made.chosen), *sorted(saying(r.text) for r in made.rejects))
            if (first := seen.setdefault(words, query.query_id)) != query.query_id:
                made = _drop(query, "duplicate", f"its pair repeats that of query {first}")
        if isinstance(made, Drop):
            drops.append(made)
        else:
            pairs.append(made)
    return pairs, drops


def to_write(
    queries: Sequence[Query],
    rollouts_by_query: Mapping[str, Sequence[Rollout]],
    verdicts_by_rollout: Mapping[str, Verdict],
    clips: Mapping[str, Clip],
    rules: PreferenceConfig,
    seed: int,
) -> list[WriteRequest]:
    """Rejects that neither the rollouts nor rules give, for a model to write; none where `written_rejects` is off.

    Raises:
        StageError: see `build_pairs`.
    """
    wanted: list[WriteRequest] = []
    for query in queries if rules.written_rejects else ():
        judged = _judged(query, rollouts_by_query, verdicts_by_rollout, clips, rules, seed, {})
        chosen, _ = _choose(judged)
        if judged.rollouts and chosen:
            there = {r.kind for r in _rejects(judged, chosen)}
            wanted += [WriteRequest(query, judged.clip, chosen, kind) for kind in RejectKind if kind not in there]
    return wanted


def seen_pairs(pairs: Sequence[PreferencePair], *, one_reject: bool) -> list[PreferencePair]:
    """The pairs as they are trained on: with all their rejects, or each with one, drawn by its id."""
    if not one_reject:
        return list(pairs)
    return [
        dataclasses.replace(pair, rejects=(random.Random(pair.pair_id).choice(pair.rejects),))
        if len(pair.rejects) > 1
        else pair
        for pair in pairs
    ]


def study_pairs_key(source: str, *, one_reject: bool) -> str:
    """Key of the pairs of a study's run, which are those of its world (`source`: their digest) as its method sees
    them."""
    return digest("pairs", "study", source, one_reject)


def summarise(pairs: Sequence[PreferencePair], drops: Sequence[Drop]) -> dict[str, float]:
    """Counts, and the shares of texts that are on-policy, reference or written (0 to 1)."""
    rejects = [r for p in pairs for r in p.rejects]
    sources = [*(p.chosen_source for p in pairs), *(r.source for r in rejects)]
    ratios = [length_ratio(p.chosen, r.text) for p in pairs for r in p.rejects]
    counts: dict[str, float] = {
        "pairs": len(pairs),
        "dropped": len(drops),
        "rejects_spurious": sum(r.kind is RejectKind.SPURIOUS for r in rejects),
        "rejects_hallucinated": sum(r.kind is RejectKind.HALLUCINATED for r in rejects),
        "chosen_on_policy_share": _share(p.chosen_source == "rollout" for p in pairs),
        "chosen_reference_share": _share(p.chosen_source == "reference" for p in pairs),
        "reject_on_policy_share": _share(r.source == "rollout" for r in rejects),
        "reject_written_share": _share(r.source == "written" for r in rejects),
        "texts_on_policy_share": _share(s == "rollout" for s in sources),
        "texts_reference_share": _share(s == "reference" for s in sources),
        "texts_written_share": _share(s == "written" for s in sources),
        "reject_length_ratio_mean": sum(ratios) / len(ratios) if ratios else 0.0,
        "both_kinds_share": _share(len({r.kind for r in p.rejects}) == 2 for p in pairs),
        "swap_share": _share(p.swap is not None for p in pairs),
    }
    reasons = Counter(d.reason for d in drops)
    return counts | {f"dropped_{reason}": n for reason, n in sorted(reasons.items())}


def stood_in(
    pairs: Iterable[PreferencePair], rollouts_by_query: Mapping[str, Sequence[Rollout]], verdicts: Mapping[str, Verdict]
) -> int:
    """How many sampled rejects were not judged to be of the kind whose place they took."""
    count = 0
    for pair in pairs:
        said = rollouts_by_query.get(pair.query_id, ())
        for reject in pair.rejects:
            labels = {verdicts[r.rollout_id].label for r in said if r.text.strip() == reject.text}
            count += reject.source == "rollout" and _LABEL_OF[reject.kind] not in labels
    return count


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def _judged(
    query: Query,
    rollouts_by_query: Mapping[str, Sequence[Rollout]],
    verdicts: Mapping[str, Verdict],
    clips: Mapping[str, Clip],
    rules: PreferenceConfig,
    seed: int,
    written: Written,
) -> _Judged:
    rollouts = rollouts_by_query.get(query.query_id, ())
    if query.clip_id not in clips:
        raise StageError(f"query {query.query_id} is about clip {query.clip_id}, which is not in the clip table")
    missing = [r.rollout_id for r in rollouts if r.rollout_id not in verdicts]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(rollouts)} rollouts of query {query.query_id} have no verdict, for instance "
            f"{missing[0]}; run the judge again"
        )
    ordered = tuple(sorted(rollouts, key=lambda r: (r.index, r.rollout_id)))
    labels = tuple(verdicts[r.rollout_id] for r in ordered)
    return _Judged(query, clips[query.clip_id], ordered, labels, rules, written, seed)


def _build_pair(judged: _Judged, swap: ModalitySwap | None, clips: Mapping[str, Clip]) -> PreferencePair | Drop:
    query, rules = judged.query, judged.rules
    if not judged.rollouts:
        return _drop(query, "no_rollouts", "no response was sampled")
    faithful = [v.label is VerdictLabel.FAITHFUL for v in judged.verdicts]
    if rules.hard_only and (all(faithful) or not any(faithful)):
        return _drop(query, "not_hard", "its rollouts are all faithful, or none is")
    chosen, source = _choose(judged)
    if not chosen:
        return _drop(query, "no_chosen", "no rollout is faithful and the query has no reference answer")
    rejects = _rejects(judged, chosen)
    if not rejects:
        what = "every rollout is faithful" if all(faithful) else "no rollout shows a usable failure"
        return _drop(query, "all_faithful" if all(faithful) else "no_reject", f"{what} and no reject could be written")
    if rules.both_kinds_only and len({r.kind for r in rejects}) < len(RejectKind):
        return _drop(query, "one_kind", "it has one kind of reject alone")
    if (margin := _margin(judged, chosen, rejects)) < rules.min_margin:
        return _drop(query, "low_margin", f"its margin is {margin:.2f}, below {rules.min_margin:g}")
    if swap is not None and rules.check_swaps and _stays_right(chosen, judged, swap, clips):
        swap = None
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


def _stays_right(chosen: str, judged: _Judged, swap: ModalitySwap, clips: Mapping[str, Clip]) -> bool:
    """Whether the chosen response is as faithful to the mismatched input as to the clip, so that preferring the clip
    would teach that it is wrong; False where that cannot be told, without cues or for a medium that is half there."""
    if swap.strategy in ("crop", "diffusion"):
        return False
    shown = as_shown(judged.clip, swap, clips)
    told = {cue.modality for cue in shown.cues}
    if not told >= {"audio_video": {"video", "audio"}, "video": {"video"}, "audio": {"audio"}}[swap.modality]:
        return False
    return judge_text(chosen, judged.query, shown).label is VerdictLabel.FAITHFUL


def _margin(judged: _Judged, chosen: str, rejects: Sequence[Reject]) -> float:
    """How much surer the judge is that the chosen response is faithful than the closest reject, -1 to 1.

    A reference answer counts as surely faithful, a written reject as surely not.
    """
    sure: dict[str, float] = {}
    for rollout, verdict in zip(judged.rollouts, judged.verdicts, strict=True):
        faithful = verdict.label is VerdictLabel.FAITHFUL
        sure.setdefault(normalise(rollout.text), verdict.confidence if faithful else 1 - verdict.confidence)
    closest = max(sure.get(normalise(r.text), 0.0) if r.source == "rollout" else 0.0 for r in rejects)
    return sure.get(normalise(chosen), 1.0) - closest


def _drop(query: Query, reason: str, message: str) -> Drop:
    return Drop(sample_id=query.query_id, stage="pairs", reason=reason, message=f"query {query.query_id}: {message}")


# Chosen ---------------------------------------------------------------------------------------------------------------


def _choose(judged: _Judged) -> tuple[str, str]:
    """The chosen text and its source; empty when there is none."""
    if judged.rules.chosen == "reference":
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
    """The text that is said most often (as first spelled); ties by the seed. Empty for no texts."""
    groups: list[list[str]] = []
    for text in texts:
        mine = next((g for g in groups if _same(g[0], text, judged)), None)
        groups.append([text]) if mine is None else mine.append(text)
    best = min(groups, key=lambda g: (-len(g), _tie(judged, g[0].strip())), default=[""])
    return best[0].strip()


def _same(a: str, b: str, judged: _Judged) -> bool:
    """Whether two texts count as one, by `preference.near_duplicate`."""
    share = judged.rules.near_duplicate
    if share is None:
        return normalise(a) == normalise(b)
    if normalise(a) == normalise(b) or saying(a) == saying(b):
        return True
    if share == 1.0 or word_share(a, b) < share:
        return False
    one, other = ({(c.cue.name, c.stance) for c in find_cues(t, judged.clip.cues) if c.cue} for t in (a, b))
    return one == other and bool(one)


def _tie(judged: _Judged, text: str) -> str:
    return digest(judged.seed, judged.query.query_id, text)


# Rejects --------------------------------------------------------------------------------------------------------------


def _rejects(judged: _Judged, chosen: str) -> tuple[Reject, ...]:
    """One or two rejects, the spurious one first."""
    found: dict[RejectKind, Reject] = {}
    for kind in RejectKind:
        _add(found, kind, judged.texts(_LABEL_OF[kind]), "rollout", chosen, judged)
    wrong = judged.texts(VerdictLabel.WRONG_EMOTION)
    _add_spare(found, [t for t in wrong if _wrong_answer(t, judged.query)], chosen, judged)
    for kind in RejectKind if judged.rules.written_rejects else ():
        if kind not in found:
            texts = edits.written(kind, judged.query, judged.clip, chosen)
            texts = texts or list(judged.written.get((judged.query.query_id, kind), ()))
            _add(found, kind, texts, "written", chosen, judged)
    if not found:
        _add_spare(found, wrong, chosen, judged)
    return tuple(found[kind] for kind in RejectKind if kind in found)


def _add(
    found: dict[RejectKind, Reject], kind: RejectKind, texts: Sequence[str], source: str, chosen: str, judged: _Judged
) -> None:
    """Puts the best of the texts into its place, unless it repeats the chosen response or another reject."""
    taken = [chosen, *(r.text for r in found.values())]
    fresh = [t for t in texts if normalise(t) and not any(_same(t, other, judged) for other in taken)]
    limit = judged.rules.max_length_ratio if source == "rollout" else None
    allowed = fresh if limit is None else [t for t in fresh if close_in_length(t, chosen, limit)]
    text = _most_frequent([t for t in allowed if close_in_length(t, chosen)] or allowed, judged)
    if text:
        found[kind] = Reject(kind=kind, text=text, source=source)


def _add_spare(found: dict[RejectKind, Reject], texts: Sequence[str], chosen: str, judged: _Judged) -> None:
    place = next((kind for kind in RejectKind if kind not in found), None)
    if place is not None:
        _add(found, place, texts, "rollout", chosen, judged)


def _wrong_answer(text: str, query: Query) -> bool:
    letter, _ = leading_letter(text, [split_choice(c)[0] for c in query.choices])
    return not query.choices or (letter is not None and letter != query.answer)
