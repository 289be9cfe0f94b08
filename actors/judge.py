"""The judge as a long-lived process: responses in, verdicts with evidence out."""

from collections.abc import Mapping, Sequence

import ray

from avere_ray.config import JudgeConfig
from avere_ray.errors import StageError
from avere_ray.records import Clip, Cue, Query, Rollout, Verdict
from avere_ray.verdicts import judge_by_rules


class JudgeWorker:
    """Labels responses; holds the cue lexicon of the corpus and nothing else, so it may be restarted at any time."""

    def __init__(self, cfg: JudgeConfig | None = None, lexicon: Sequence[Cue] = ()) -> None:
        """`lexicon`: every cue of the corpus (`verdicts.corpus_lexicon`), to recognise those a clip does not list."""
        self.cfg = cfg or JudgeConfig()
        self.lexicon = tuple(lexicon)

    def judge(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """One verdict per rollout, in the order given.

        Raises:
            InputError: a clip has no annotated cues.
            StageError: the query or the clip of a rollout was not given.
        """
        return [self._judge_one(rollout, queries, clips) for rollout in rollouts]

    def _judge_one(self, rollout: Rollout, queries: Mapping[str, Query], clips: Mapping[str, Clip]) -> Verdict:
        if rollout.query_id not in queries or rollout.clip_id not in clips:
            raise StageError(
                f"rollout {rollout.rollout_id} answers query {rollout.query_id} about clip {rollout.clip_id}, but the "
                "judge was not given both; the rollouts belong to other queries or another clip table"
            )
        return judge_by_rules(rollout, queries[rollout.query_id], clips[rollout.clip_id], self.lexicon)


JudgeActor = ray.remote(JudgeWorker)
