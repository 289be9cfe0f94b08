"""The judge that the config names, as a JudgeFn."""

from collections.abc import Mapping, Sequence

from avere_ray.config import RunConfig
from avere_ray.protocols import JudgeFn
from avere_ray.records import Clip, Cue, Query, Rollout, Verdict
from avere_ray.verdicts import judge_by_rules


def make_judge(cfg: RunConfig, lexicon: Sequence[Cue]) -> JudgeFn:
    """A judge for the responses of one corpus; `lexicon` are the corpus's cues."""

    def judge(
        rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        return [judge_by_rules(r, queries[r.query_id], clips[r.clip_id], lexicon) for r in rollouts]

    return judge
