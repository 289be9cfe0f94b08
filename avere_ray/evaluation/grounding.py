"""What a model really uses: how much worse it gets when a medium is swapped, silenced, blanked or left out.

Per mode and per kind of question (about the audio, the video, both): the drop in accuracy, and the shift of the right
answer's log-likelihood. A model that answers questions about the voice no worse without the voice does not listen.
The likelihood is that of the right option among the options of its question, so that it compares over prompts; the
shift is in nats, positive where the right answer gets less likely. Both are means over the questions that could be
asked in both ways, paired question by question, with 95 % intervals from resampled clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avere_ray.evaluation.scorer import as_json, number
from avere_ray.evaluation.showing import REMOVED
from avere_ray.evaluation.statistics import by_clip, clip_weights, spread_interval
from avere_ray.evaluation.tables import Figure, Outcome
from avere_ray.records import Query

Logps = Mapping[str, Mapping[str, float]]
"""Log-likelihood (nats) of each option, by question id."""
ALL = "all"
"""Name of the row over every question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Answers to questions put in one way."""

    outcomes: Mapping[str, Outcome]
    """By question id."""
    logps: Logps
    """Empty where the model gives no likelihoods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What one kind of question loses in one mode."""

    mode: str
    asked: str
    """"audio", "video", "audio_video", or "all"."""
    n: int
    """Questions put both ways."""
    plain: float
    """Accuracy with the clip as it is, percent."""
    changed: float
    """Accuracy in the mode, percent."""
    drop: Figure
    """Plain minus changed, percentage points."""
    shift: Figure | None
    """Log-likelihood of the right answer lost, nats; None where there are no likelihoods."""


def losses(queries: Sequence[Query], plain: View, modes: Mapping[str, View]) -> list[Loss]:
    """What each mode costs, for each kind of question and for all of them."""
    kinds = sorted({query.modality for query in queries})
    found = []
    for mode, changed in modes.items():
        both = [q for q in queries if q.query_id in plain.outcomes and q.query_id in changed.outcomes]
        groups = {kind: [q for q in both if q.modality == kind] for kind in kinds} | {ALL: both}
        found += [_loss(mode, kind, group, plain, changed) for kind, group in groups.items() if group]
    return found


def to_json(found: Sequence[Loss]) -> dict[str, Any]:
    """The report: by medium that is taken away, by mode, by kind of question."""
    report: dict[str, Any] = {}
    for loss in found:
        medium = " and ".join(REMOVED[loss.mode])
        report.setdefault(medium, {}).setdefault(loss.mode, {})[loss.asked] = {
            "n": loss.n,
            "accuracy": loss.plain,
            "accuracy_changed": loss.changed,
            "drop": {"value": loss.drop.value, **as_json(loss.drop)},
            "shift_nats": {"value": number(loss.shift.value), **as_json(loss.shift)} if loss.shift else None,
        }
    return report


def to_metrics(found: Sequence[Loss]) -> dict[str, float]:
    """The report as flat metrics: `grounding_<mode>_<asked>_drop` and `_shift`."""
    metrics = {}
    for loss in found:
        name = f"grounding_{loss.mode}_{loss.asked}"
        metrics[f"{name}_drop"] = loss.drop.value
        if loss.shift is not None:
            metrics[f"{name}_shift"] = loss.shift.value
    return metrics


def right_logp(logps: Mapping[str, float], gold: str) -> float:
    """Log-probability (nats) of the right option among the options."""
    values = np.array(list(logps.values()))
    return float(logps[gold] - np.logaddexp.reduce(values))


def _loss(mode: str, asked: str, queries: Sequence[Query], plain: View, changed: View) -> Loss:
    clips = [query.clip_id for query in queries]
    before = np.array([float(plain.outcomes[q.query_id].right) for q in queries])
    after = np.array([float(changed.outcomes[q.query_id].right) for q in queries])
    return Loss(
        mode=mode,
        asked=asked,
        n=len(queries),
        plain=100 * float(before.mean()),
        changed=100 * float(after.mean()),
        drop=_mean(100 * (before - after), clips),
        shift=_shift(queries, plain.logps, changed.logps),
    )


def _shift(queries: Sequence[Query], plain: Logps, changed: Logps) -> Figure | None:
    known = [q for q in queries if q.answer in plain.get(q.query_id, ()) and q.answer in changed.get(q.query_id, ())]
    if not known:
        return None
    lost = [right_logp(plain[q.query_id], q.answer) - right_logp(changed[q.query_id], q.answer) for q in known]
    return _mean(np.array(lost), [q.clip_id for q in known])


def _mean(values: np.ndarray, clips: Sequence[str]) -> Figure:
    """The mean over questions, with an interval from resampled clips; none where nothing varies."""
    count = len(set(clips))
    weights = clip_weights(count)
    drawn = (weights @ by_clip(values, clips)) / (weights @ by_clip(np.ones(len(values)), clips))
    return Figure(float(values.mean()), spread_interval(drawn, count), len(values))
