"""The fine-tuned setting: a benchmark's own questions about training clips, as preferences of the right answer.

The questions are those of few-shot examples (`few_shot`). Preferred is the right option as the model would write it,
"(B) No" or "happiness", over every other option in the same form, so that neither length nor wording tells them apart.
A pair has no mismatched input: an answer is right or wrong, whatever it rests on.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

from avere_ray.evaluation.benchmark import Benchmark, Option
from avere_ray.evaluation.showing import Example
from avere_ray.records import Drop, PreferencePair, Query, Reject, RejectKind

STAGE = "pairs"
SOURCE = "answer"
"""What the texts of these pairs are: options of the question."""


def answer_pairs(
    benchmark: Benchmark, examples: Mapping[str, Sequence[Example]]
) -> tuple[list[PreferencePair], list[Drop]]:
    """A pair for each example, or a drop: "open_question" where there are no options to choose from,
    "no_right_answer" where the right one is none of them, "no_other_answer" where it is the only one."""
    pairs, drops = [], []
    for query in (example.query for example in chain.from_iterable(examples.values())):
        options = benchmark.options(query)
        flaw = _flaw(query, options)
        if flaw is None:
            pairs.append(_pair(benchmark.name, query, options))
        else:
            drops.append(Drop(sample_id=query.query_id, stage=STAGE, reason=flaw[0], message=flaw[1]))
    return pairs, drops


def _flaw(query: Query, options: Mapping[str, Option]) -> tuple[str, str] | None:
    """Why a question makes no pair: reason and sentence."""
    if not options:
        return "open_question", f"question {query.query_id} (task {query.task}) has no options, so none is wrong"
    if query.answer not in options:
        known = ", ".join(options)
        return "no_right_answer", f"question {query.query_id}: its answer {query.answer!r} is none of {known}"
    if len(options) == 1:
        return "no_other_answer", f"question {query.query_id} has {query.answer} as its only option"
    return None


def _pair(benchmark: str, query: Query, options: Mapping[str, Option]) -> PreferencePair:
    kind = RejectKind.SPURIOUS if query.subtype == RejectKind.SPURIOUS else RejectKind.HALLUCINATED
    wrong = [option.said for name, option in options.items() if name != query.answer]
    return PreferencePair(
        pair_id=f"{query.query_id}~{benchmark}",
        query_id=query.query_id,
        clip_id=query.clip_id,
        modality=query.modality,
        prompt=query.prompt,
        chosen=options[query.answer].said,
        chosen_source=SOURCE,
        rejects=tuple(Reject(kind=kind, text=text, source=SOURCE) for text in wrong),
        swap=None,
    )
