"""The judge that the config names, as a JudgeFn."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from avere_ray.config import JudgeConfig
from avere_ray.errors import InputError
from avere_ray.judges import omni
from avere_ray.judges.llm import VERSION as LLM
from avere_ray.judges.llm import CachedModel, LlmJudge, ReadableFn, RemoteText, readable
from avere_ray.judges.replies import ReplyCache
from avere_ray.protocols import AskFn, JudgeFn
from avere_ray.records import Clip, Cue, Query, Rollout, Verdict
from avere_ray.stages import model_digest
from avere_ray.verdicts import JUDGE, judge_by_rules

LocalModel = Callable[[JudgeConfig], AskFn]
"""Starts an engine on `judge.model_path`; given from above, since engines stand above the judges."""


class RulesJudge:
    """Implements JudgeFn by the rules of `avere_ray.verdicts`."""

    def __init__(self, lexicon: Sequence[Cue] = ()) -> None:
        """`lexicon`: every cue of the corpus, to recognise those that a clip does not list."""
        self.lexicon = tuple(lexicon)

    def __call__(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """One verdict per rollout, in the order given.

        Raises:
            InputError: a clip has no annotated cues; says which judges apply.
        """
        return [judge_by_rules(r, queries[r.query_id], clips[r.clip_id], self.lexicon) for r in rollouts]


def make_judge(
    cfg: JudgeConfig, lexicon: Sequence[Cue] = (), *, model: AskFn | None = None, cache: Path | None = None
) -> JudgeFn:
    """The rules or the llm judge; the omni judge needs engines that hold clips, see `jobs.workers`.

    Args:
        cfg: the `judge` section.
        lexicon: every cue of the corpus.
        model: the llm judge's model; None makes it with `text_model`.
        cache: folder for its replies; None keeps them in memory.

    Raises:
        InputError: an engine is asked for where none can be started.
        ConfigError: the endpoint's key is missing.
    """
    if cfg.backend == "rules":
        return RulesJudge(lexicon)
    if cfg.backend == "llm":
        return LlmJudge(model or text_model(cfg, cache=cache), model_name(cfg))
    raise InputError("the omni judge watches clips; ask it in a run (judge.backend omni)")


def text_model(
    cfg: JudgeConfig,
    *,
    cache: Path | None = None,
    local: LocalModel | None = None,
    readable: ReadableFn = readable,
    start_within_s: float = math.inf,
) -> CachedModel:
    """The llm judge's model behind its cache, beside which the usage of a remote one is kept.

    Args:
        cfg: the `judge` section.
        cache: folder for its replies; None keeps them in memory.
        local: starts an engine, where `judge.model_path` is set.
        readable: which replies are kept.
        start_within_s: seconds in which a call takes up requests to a server; see `Endpoint.ask_all`.

    Raises:
        InputError: an engine is asked for where none can be started.
        ConfigError: the endpoint's key is missing.
    """
    settings = {"version": LLM, "max_tokens": cfg.max_tokens, "dtype": cfg.dtype if cfg.model_path else ""}
    kept = ReplyCache(cache, model_name(cfg), settings)
    if cfg.endpoint.url:
        used = kept.path.with_suffix(".usage") if kept.path is not None else None
        remote = RemoteText(cfg.endpoint, cfg.max_tokens, used, start_within_s=start_within_s)
        return CachedModel(remote, kept, readable)
    if local is None:
        raise InputError("judge.model_path needs an engine, which this verb does not start; set judge.endpoint.url")
    return CachedModel(local(cfg), kept, readable)


def model_name(cfg: JudgeConfig) -> str:
    """What the judging model is called in verdicts and caches: a server's name for it, or its folder and digest."""
    if cfg.backend == "llm" and cfg.endpoint.url:
        return cfg.endpoint.model
    if cfg.model_path is None:
        return ""
    return f"{cfg.model_path.name}@{model_digest(cfg.model_path)[:8]}"


def judge_key(cfg: JudgeConfig) -> tuple[object, ...]:
    """What verdicts depend on besides their inputs; where and how fast the model runs is no part of it, but in which
    precision a model of one's own does."""
    if cfg.backend == "rules":
        return ("rules", JUDGE)
    if cfg.backend == "llm":
        own = () if cfg.endpoint.url else (cfg.dtype,)
        return ("llm", LLM, model_name(cfg), cfg.max_tokens, *own)
    return ("omni", omni.VERSION, model_name(cfg), cfg.votes, cfg.temperature, cfg.dtype)
