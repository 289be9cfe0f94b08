"""The long-lived actors of a run: engines, judge, swap partner service, scorer. Each starts when first asked for.

A run whose stages are all finished starts none of them. Adapters are switched in the running engines, and the parity
gate is passed before anything is sampled from one. Ray is imported when the first actor starts, since the session has
to set where Ray listens before that.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from avere_ray.config import JudgeConfig, RunConfig
from avere_ray.environment import SLEEPING_THREADS
from avere_ray.errors import RequestsLeft
from avere_ray.judges.choose import model_name
from avere_ray.judges.omni import OmniJudge
from avere_ray.judges.writing import WriteRequest, Written, write_judged
from avere_ray.learner import MODEL_FOLDER
from avere_ray.parity import check_applied, choose_probes, compare, ways_to_show
from avere_ray.placement import label_selector
from avere_ray.progress import say
from avere_ray.prompts import all_queries, plain_queries
from avere_ray.protocols import AskFn, ProgressFn
from avere_ray.records import Clip, Query, Rollout, Verdict
from avere_ray.store import DecodedStore
from avere_ray.verdicts import corpus_lexicon
from jobs.layout import feature_path, logp_path, stage_path, verdict_path

if TYPE_CHECKING:
    from actors.pool import RolloutPool
    from actors.service import Service


class Workers:
    """Actors of one run, started on demand, ended together."""

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg
        self.decoded = stage_path(cfg, "decoded")
        self.sampled: set[int] = set()
        """Rounds whose rollouts were sampled by this very process."""
        self.watch: Callable[[], None] = lambda: None
        """Called while engines start; raises when waiting for them has become pointless."""
        self._parity: dict[int, float] = {}
        self._loaded: tuple[Path | None, int] | None = None

    @cached_property
    def store(self) -> DecodedStore:
        """The decoded clips."""
        return DecodedStore(self.decoded)

    @cached_property
    def clips(self) -> list[Clip]:
        """Every clip that was decoded, in corpus order."""
        return self.store.clips()

    @cached_property
    def pool(self) -> "RolloutPool":
        """The rollout engines; the scorer starts beside them, since the parity gate needs both."""
        from actors.pool import RolloutPool

        cfg = self.cfg
        pool = RolloutPool(
            _absolute(cfg).model,
            cfg.rollout,
            lora_rank=cfg.train.lora_rank,
            decode=cfg.data.decode,
            decoded=self.decoded,
            threads=_threads(cfg),
            role=cfg.placement.rollout,
            clips_per_request=1 + cfg.evaluation.few_shot,
        )
        say(f"rollout: starting {cfg.rollout.engines} vLLM engine(s) on {cfg.model.path}")
        self.scorer.start()
        pool.wait_ready(self.watch)
        return pool

    @cached_property
    def scorer(self) -> "Service":
        """The learner's model outside training."""
        from actors.scorer import ScorerActor

        cfg = self.cfg
        env = {**SLEEPING_THREADS, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1",
               "OMP_NUM_THREADS": str(_threads(cfg))}  # fmt: skip
        actor = ScorerActor.options(
            num_cpus=0,
            num_gpus=cfg.rollout.scorer_gpus,
            label_selector=self._beside_engines,
            runtime_env={"env_vars": env},
        )
        start = partial(
            actor.remote,
            _absolute(cfg).model,
            lora_rank=cfg.train.lora_rank,
            lora_alpha=cfg.train.lora_alpha,
            decoded=self.decoded,
            features=feature_path(cfg),
            features_gb=cfg.cache.features_gb,
            logps=logp_path(cfg),
            device="cuda" if cfg.rollout.scorer_gpus else "cpu",
        )
        return _service(
            "scorer", start, cfg.rollout.scorer_deadline_s, "Raise rollout.scorer_deadline_s or give it more memory."
        )

    @cached_property
    def judge(self) -> "Service":
        """The judge's process: rules, or a text model."""
        from actors.judge import JudgeActor

        cfg = self.cfg.judge
        start = partial(
            JudgeActor.options(**self._judge_options(cfg)).remote,
            _absolute(self.cfg).judge,
            corpus_lexicon(self.clips),
            verdict_path(self.cfg),
        )
        remedy = "Raise judge.deadline_s, lower judge.batch_rollouts, or give it more memory."
        return _service("judge", start, cfg.longest_call_s, remedy)

    def _judge_options(self, cfg: JudgeConfig) -> dict[str, Any]:
        # An endpoint's key stays in the environment of the nodes: what is given to Ray is shown on its dashboard.
        return {"num_cpus": cfg.num_cpus, "num_gpus": cfg.num_gpus, "label_selector": self._beside_engines}

    @cached_property
    def judge_pool(self) -> "RolloutPool":
        """Engines of the omni judge's model, over the run's decoded clips."""
        from actors.pool import RolloutPool

        cfg, judge = self.cfg, self.cfg.judge
        assert judge.model_path is not None
        model = cfg.model.model_copy(update={"path": judge.model_path.absolute(), "dtype": judge.dtype})
        rollout = cfg.rollout.model_copy(update={
            "engines": 1, "max_engines": None, "num_cpus": judge.num_cpus, "num_gpus": judge.num_gpus, "top_p": 1.0,
            "max_model_len": judge.max_model_len, "deadline_s": judge.deadline_s})  # fmt: skip
        say(f"judge: starting a vLLM engine on {judge.model_path}")
        pool = RolloutPool(model, rollout, lora_rank=cfg.train.lora_rank, decode=cfg.data.decode, decoded=self.decoded,
                           threads=_threads(cfg), role=cfg.placement.rollout,
                           deadline_setting="judge.deadline_s")  # fmt: skip
        pool.wait_ready()
        return pool

    def judged(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """Verdicts of the judge that the config names; implements JudgeFn."""
        cfg = self.cfg.judge
        if cfg.backend != "omni":
            return self._ask_judge("judge", "judge", rollouts, queries, clips)
        judge = OmniJudge(self.judge_pool, model_name(cfg), votes=cfg.votes, temperature=cfg.temperature,
                          seed=self.cfg.seed, lexicon=corpus_lexicon(self.clips))  # fmt: skip
        return judge(rollouts, queries, clips)

    def written(self, requests: Sequence[WriteRequest], progress: ProgressFn) -> Written:
        """Rejects that the llm judge's model writes and the judge finds wrong, judge.batch_rollouts a call."""
        found: Written = {}
        size = self.cfg.judge.batch_rollouts
        for start in range(0, len(requests), size):
            part = requests[start : start + size]
            found |= write_judged(part, partial(self._ask_judge, "pairs", "write"), self.judged)
            progress(start + len(part), len(requests))
        return found

    def _ask_judge(self, stage: str, method: str, *args: Any) -> Any:
        """The judge's answer. A server that is slow, busy or limited in rate needs several calls for it; each gets
        further than the one before."""
        while True:
            try:
                return self.judge.ask(stage, method, *args)
            except RequestsLeft as left:
                say(f"judge: {getattr(left, 'cause', left)}")  # Ray puts a traceback into its own message

    def judges_replaced(self) -> int:
        """How often the judge that the config names was replaced since this was last asked."""
        return (self.judge_pool if self.cfg.judge.backend == "omni" else self.judge).take_replaced()

    @cached_property
    def rating_judge(self) -> "Service":
        """The process of the text model that rates descriptions."""
        from actors.judge import JudgeActor

        cfg = self.cfg.evaluation.judge
        say(f"evaluation: starting a vLLM engine on {cfg.model_path}, which rates descriptions")
        start = partial(JudgeActor.options(**self._judge_options(cfg)).remote, _with_absolute_model(cfg))
        remedy = "Raise evaluation.judge.deadline_s, or lower evaluation.judge.batch_rollouts."
        return _service("judge of descriptions", start, cfg.deadline_s, remedy)

    def rating_model(self, judge: JudgeConfig) -> AskFn:
        """The text model of `evaluation.judge.model_path`, in a process of its own that starts when it is asked."""

        def ask(prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]) -> None:
            for start in range(0, len(prompts), judge.batch_rollouts):
                some = list(prompts[start : start + judge.batch_rollouts])
                replies = self.rating_judge.ask("evaluation", "reply", some, dict(schema))
                for index, reply in enumerate(replies, start=start):
                    done(index, reply)

        return ask

    def end_rating(self) -> None:
        """Ends the text model that rated descriptions, if there was one."""
        self._end("rating_judge")

    @cached_property
    def swap(self) -> "Service":
        """The swap partner service, over the training clips."""
        from actors.modality_swap import ModalitySwapActor

        cfg = self.cfg.preference
        start = partial(
            ModalitySwapActor.options(num_cpus=0, label_selector=self._beside_engines).remote,
            self.training_clips,
            strategy=cfg.swap,
            level=cfg.swap_level,
            seed=self.cfg.seed,
            durations_s=self.store.durations_s(),
        )
        remedy = "Raise preference.swap_deadline_s or give it more memory."
        return _service("swap actor", start, cfg.swap_deadline_s, remedy)

    @property
    def _beside_engines(self) -> dict[str, str]:
        return label_selector(self.cfg.placement.rollout)

    @property
    def training_clips(self) -> list[Clip]:
        """Clips of the split "train"."""
        return [c for c in self.clips if c.split == "train"]

    def use_adapter(self, folder: Path | None, version: int, clips: Sequence[Clip] | None = None) -> float:
        """Switches the engines to an adapter (None, 0: the base) and passes the parity gate.

        Args:
            clips: the first `gate_clips` of the corpus, while the rest is still being decoded; None: they are all.

        Returns:
            Largest difference of a token's log-prob between engine and learner (nats).

        Raises:
            ParityError: see `avere_ray.parity.compare`.
        """
        if self._loaded == (folder, version):
            return self._parity[version]
        if folder is not None and (folder / MODEL_FOLDER).is_dir():
            return self._use_model(folder, version)
        self.pool.load_adapter(folder, version)
        worst = self._pass_parity_gate(folder, version, clips)
        self._loaded, self._parity[version] = (folder, version), worst
        say(
            f"parity: engine and learner agree with {'adapter version ' + str(version) if version else 'the base'}; "
            f"largest difference {worst:.1e} nats"
        )
        return worst

    def _use_model(self, folder: Path, version: int) -> float:
        """Starts the engines and the scorer again on the model that full fine-tuning wrote."""
        self._end("scorer", "pool")
        self.cfg = self.cfg.model_copy(
            update={"model": self.cfg.model.model_copy(update={"path": folder / MODEL_FOLDER})}
        )
        self.pool.load_adapter(None, 0)
        worst = self._pass_parity_gate(None, 0)
        self._loaded, self._parity[version] = (folder, version), worst
        say(f"parity: engine and learner agree with the fine-tuned model; largest difference {worst:.1e} nats")
        return worst

    @property
    def gate_clips(self) -> int:
        """How many clips the parity gate asks about."""
        return 2 * self.cfg.parity.prompts

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Tells engines and scorer of clips that are there before the decode stage has finished."""
        self.pool.arrive(places)
        self.scorer.tell("arrive", places)

    def _pass_parity_gate(self, folder: Path | None, version: int, clips: Sequence[Clip] | None = None) -> float:
        cfg = self.cfg
        clips = self.clips if clips is None else clips
        queries = [q for clip in clips[: self.gate_clips] for q in all_queries(clip, cfg.seed)]
        queries = queries or [q for clip in clips[: self.gate_clips] for q in plain_queries(clip)]
        asked = choose_probes(queries, cfg.parity.prompts)
        rollouts = self.pool(asked, n=1, temperature=0.0, max_tokens=cfg.rollout.max_tokens, seed=cfg.seed)
        said = {r[0].query_id: r[0].token_ids for r in rollouts}
        probes, shown = zip(*ways_to_show(asked), strict=True)
        responses = [said[q.query_id] for q in probes]
        scored = partial(self.scorer.ask, "parity gate", "response_logps", probes, responses)
        learner, base = scored(folder, shown), None if folder is None else scored(None, shown)
        worst = 0.0
        for engine in self.pool.response_logps(probes, responses, shown):
            limit = cfg.parity.max_abs_diff
            worst = max(worst, compare(probes, engine, learner, max_abs_diff=limit, adapter_version=version))
            if base is not None and not check_applied(engine, learner, base, adapter_version=version):
                say(f"parity: adapter version {version} changes the probes too little to tell whether it is applied")
        self.pool.remember(probes, responses, shown, learner, base, cfg.parity.max_abs_diff)
        return worst

    def close(self) -> None:
        """Ends every actor that was started."""
        self._end("scorer", "judge", "rating_judge", "swap", "judge_pool", "pool")

    def _end(self, *names: str) -> None:
        for name in names:
            held = self.__dict__.pop(name, None)
            if held is not None:
                held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _service(name: str, start: Callable[[], Any], deadline_s: float, remedy: str) -> "Service":
    from actors.service import Service

    return Service(name, start, deadline_s=deadline_s, remedy=remedy)


def sample_queries(clips: Sequence[Clip], cfg: RunConfig, round_: int) -> list[Query]:
    """Training queries of a round, from the clips' cues."""
    from avere_ray.prompts import training_queries

    return [q for clip in clips for q in training_queries(clip, cfg.rollout.queries_per_clip, cfg.seed, round_)]


def _absolute(cfg: RunConfig) -> RunConfig:
    """The config with absolute model paths, for processes with another working directory."""
    model = cfg.model.model_copy(update={"path": cfg.model.path.absolute()})
    return cfg.model_copy(update={"model": model, "judge": _with_absolute_model(cfg.judge)})


def _with_absolute_model(judge: JudgeConfig) -> JudgeConfig:
    path = judge.model_path
    return judge if path is None else judge.model_copy(update={"model_path": path.absolute()})


def _threads(cfg: RunConfig) -> int:
    """Threads of an engine, and of the scorer."""
    from avere_ray.engine import engine_threads

    return engine_threads(cfg.rollout, cfg.rollout.engines)
