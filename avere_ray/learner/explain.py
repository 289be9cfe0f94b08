"""The first pair of a run in words: what the model is shown, what the loss looks at, and the tree they share."""

from typing import TYPE_CHECKING, Any

from avere_ray.records import PreferencePair
from avere_ray.tree import pack_branches

if TYPE_CHECKING:
    from avere_ray.backbones.types import Sample
    from avere_ray.branches import ByBranch

_PIECES = 12


def explain_pair(processor: Any, pair: PreferencePair, row: "ByBranch[Sample]") -> str:
    """A pair as it is trained: rendered prompt, the branches with their loss mask, and the prefix tree.

    Args:
        row: its branches, those that the loss differentiates.
    """
    rows, names = row.flat(), _names(pair, row)
    tree = pack_branches([sample.branch for sample in rows])
    alone = sum(len(sample.token_ids) for sample in rows)
    lines = [
        f"first pair: {pair.pair_id} (clip {pair.clip_id}, asks about {pair.modality or 'nothing known'})",
        "prompt as rendered (each medium is one placeholder):",
        *(f"  | {line}" for line in processor.render(pair.prompt).splitlines()),
        "branches; the loss sees the tokens in [brackets] and no others:",
    ]
    paths = [set(tree.path(b).tolist()) for b in range(len(rows))]
    for b, (name, sample) in enumerate(zip(names, rows, strict=True)):
        shared = paths[b] & set().union(*(path for other, path in enumerate(paths) if other != b))
        lines.append(f"  {name}: {_masked(processor, sample)}")
        lines.append(f"    {len(sample.token_ids)} tokens, {len(shared)} of them shared with another branch")
    lines.append(f"tree: {tree.size} nodes instead of {alone} tokens ({alone / tree.size:.2f} x fewer)")
    return "\n".join(lines) + "\n"


def _names(pair: PreferencePair, row: "ByBranch[Sample]") -> list[str]:
    own = ["chosen", *(f"rejected ({reject.kind.value})" for reject in pair.rejects)]
    swapped = "" if pair.swap is None else f", {pair.swap.modality.replace('_', ' and ')} of another clip"
    other = ", the other modality of another clip"
    parts = ((row.clean, ""), (row.relevant, swapped), (row.irrelevant, other), (row.text, ", words alone"))
    return [f"{name}{under}" for part, under in parts for name, _ in zip(own, part, strict=False)]


def _masked(processor: Any, sample: Any) -> str:
    """The end of the prompt, then the response tokens, each in brackets."""
    start = sample.branch.response_start
    decode = processor.hf.tokenizer.decode
    before = decode(sample.token_ids[max(0, start - _PIECES) : start].tolist()).replace("\n", "\\n")
    response = [decode([int(i)]).replace("\n", "\\n") for i in sample.token_ids[start:]]
    return f"...{before}" + "".join(f"[{piece}]" for piece in response)
