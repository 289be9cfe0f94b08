"""The judge as a long-lived process: responses in, verdicts with evidence out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from avere_ray.config import JudgeConfig
from avere_ray.errors import StageError
from avere_ray.judges.choose import make_judge, text_model
from avere_ray.judges.writing import WriteRequest, Written, write_rejects
from avere_ray.protocols import AskFn, JudgeFn
from avere_ray.records import Clip, Cue, Query, Rollout, Verdict


class JudgeWorker:
    """Labels responses; what a model answered is kept on disk, so the worker may be restarted at any time."""

    def __init__(self, cfg: JudgeConfig | None = None, lexicon: Sequence[Cue] = (), cache: Path | None = None) -> None:
        """
        Args:
            cfg: which judge.
            lexicon: every cue of the corpus (`verdicts.corpus_lexicon`), to recognise those a clip does not list.
            cache: folder for the replies of a model; None keeps them in memory.
        """
        self.cfg = cfg or JudgeConfig()
        self.lexicon = tuple(lexicon)
        self.cache = cache
        self._judge: JudgeFn | None = None
        self._model: AskFn | None = None

    def judge(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """One verdict per rollout, in the order given.

        Raises:
            InputError: the judge does not apply to a clip; says which one does.
            StageError: the query or the clip of a rollout was not given.
            EndpointError: the server does not answer or the budget is used up; what was answered is kept.
            RequestsLeft: half of judge.deadline_s was over before the server was asked everything; call again.
        """
        for rollout in rollouts:
            if rollout.query_id not in queries or rollout.clip_id not in clips:
                raise StageError(
                    f"rollout {rollout.rollout_id} answers query {rollout.query_id} about clip {rollout.clip_id}, but "
                    "the judge was not given both; the rollouts belong to other queries or another clip table"
                )
        if self._judge is None:
            model = self._text_model() if self.cfg.backend == "llm" else None
            self._judge = make_judge(self.cfg, self.lexicon, model=model)
        return self._judge(rollouts, queries, clips)

    def write(self, requests: Sequence[WriteRequest]) -> Written:
        """Rejects written by the llm judge's model, by query id and kind; nobody has judged them yet.

        Raises:
            EndpointError, RequestsLeft: see `judge`.
        """
        return write_rejects(requests, self._text_model())

    def reply(self, prompts: Sequence[str], schema: Mapping[str, Any]) -> list[str | None]:
        """The llm judge's model's replies, each held to a JSON schema, in the order asked; None where it refuses.

        Raises:
            EndpointError, RequestsLeft: see `judge`.
        """
        replies: list[str | None] = [None] * len(prompts)
        self._text_model()(prompts, schema, replies.__setitem__)
        return replies

    def _text_model(self) -> AskFn:
        if self._model is None:
            half = self.cfg.deadline_s / 2  # the rest is for what is in flight then, and for the way back
            self._model = text_model(self.cfg, cache=self.cache, local=_engine, start_within_s=half)
        return self._model


def _engine(cfg: JudgeConfig) -> AskFn:
    from avere_ray.engine import TextEngine

    return TextEngine(cfg)


JudgeActor = ray.remote(JudgeWorker)
