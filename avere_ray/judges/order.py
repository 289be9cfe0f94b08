"""Does a verdict depend on the order of what is judged, where it should not?

Three orders are turned round: the choices of a question (the response's letters with them), the sentences of a
response to an open question, and the responses themselves. A judge without bias gives the same labels; the share that
changes is the bias.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.judges.labelled import Labelled, judge_all
from avere_ray.protocols import JudgeFn
from avere_ray.records import Verdict
from avere_ray.responses import is_yes_no, leading_letter, split_choice

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_BOUND = re.compile(
    r"^(?:but|yet|and|so|instead|this|that|these|it|however|therefore|hence|thus|no|yes)\b", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderBias:
    """What turning an order round changes."""

    n: int
    """Responses that could be turned round."""
    changed: int
    """Of them, those with another label then."""

    @property
    def share(self) -> float:
        """Share with another label, 0 to 1; 0 when none could be turned round."""
        return self.changed / self.n if self.n else 0.0


def order_biases(examples: Sequence[Labelled], verdicts: Sequence[Verdict], judge: JudgeFn) -> dict[str, OrderBias]:
    """Bias by order: "choices", "sentences" and "responses"; `verdicts` are those of the order as given."""
    given = {v.rollout_id: v for v in verdicts}
    turned = {"choices": [t for e in examples if (t := with_choices_reversed(e)) is not None],
              "sentences": [t for e in examples if (t := with_sentences_reversed(e)) is not None],
              "responses": list(reversed(examples))}  # fmt: skip
    return {name: _bias(group, given, judge) for name, group in turned.items()}


def _bias(turned: Sequence[Labelled], given: dict[str, Verdict], judge: JudgeFn) -> OrderBias:
    again = judge_all(turned, judge) if turned else []
    return OrderBias(n=len(turned), changed=sum(v.label is not given[v.rollout_id].label for v in again))


def with_choices_reversed(example: Labelled) -> Labelled | None:
    """The same answer with the choices in the other order; None for open questions or unclear letters."""
    choices = example.query.choices
    if not choices:
        return None
    letters = [split_choice(c)[0] for c in choices]
    swap = dict(zip(letters, reversed(letters), strict=True))
    letter, end = leading_letter(example.text, letters)
    text = example.text
    if letter is not None:
        at = text.upper().rindex(letter, 0, end)
        text = text[:at] + swap[letter] + text[at + 1 :]
    head, tail = text[:end], text[end:]
    if re.search(rf"(?<![(\w'])[{''.join(letters[1:])}](?![\w')])", tail) or re.search(r"\bA[.,;]?\s*$", tail):
        return None
    text = head + re.sub(r"\(([A-H])\)", lambda m: f"({swap.get(m.group(1), m.group(1))})", tail)
    texts = [split_choice(c)[1] for c in reversed(choices)]
    turned = tuple(f"({a}) {b}" for a, b in zip(letters, texts, strict=True))
    prompt = example.query.prompt.replace(" ".join(choices), " ".join(turned))
    query = dataclasses.replace(example.query, choices=turned, answer=swap[example.query.answer], prompt=prompt)
    return dataclasses.replace(example, query=query, text=text)


def with_sentences_reversed(example: Labelled) -> Labelled | None:
    """The same response with its sentences in the other order; None for choices, or where sentences lean on others."""
    if example.query.choices and is_yes_no(split_choice(c)[1] for c in example.query.choices):
        return None
    sentences = _SENTENCE.split(example.text.strip())
    if len(sentences) < 2 or example.query.choices or any(_BOUND.match(s) for s in sentences):
        return None
    return dataclasses.replace(example, text=" ".join(reversed(sentences)))
