"""The tiny base taught anew with a planted bias of another strength, for dose and response.

It keeps what it perceives: half of the clips are decorrelated and asked about truthfully, as in its own recipe.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from avere_ray.backbones.qwen2_5_omni import load_policy
from avere_ray.backbones.tiny import save_trained
from avere_ray.synthetic.annotator import Mistakes
from avere_ray.synthetic.base import Decode, Recipe, study_corpus
from avere_ray.synthetic.base_training import encode_corpus, train_on_clips

_RATE = 3e-4
"""Half the peak rate of the base's own training."""


def teach_bias(
    base: Path, out: Path, *, bias: float, steps: int, clips: int, decode: Decode, say: Callable[[str], None]
) -> None:
    """Goes on training the language model of `base` on clips with that bias, and writes the model folder `out`.

    Args:
        bias: share of the carelessly annotated clips whose irrelevant cues agree with the emotion; their annotator errs
            in proportion to it (`Mistakes.planted`).
        decode: see `base.study_corpus`.
    """
    policy = load_policy(base, "float32")
    recipe = replace(
        Recipe(), bias=bias, mistakes=Mistakes.planted(bias), steps=steps,
        direct_clips=clips // 2, annotated_clips=clips - clips // 2,
        learning_rate=_RATE, warmup=min(40, steps // 4 + 1),
    )  # fmt: skip
    corpus = study_corpus(recipe, policy.processor, decode, say=say)
    train_on_clips(policy, corpus, encode_corpus(policy, corpus), recipe, say=say)
    shutil.copytree(base, out, ignore=shutil.ignore_patterns("tiny_base.json"))
    save_trained(policy, out)
