"""Answers questions about clips behind Ray Serve: replicas with one engine each; base and adapters by model name.

    client -> Guard and routes (actors/api.py) -> ChatWorker: decode in killable children -> live engine, step by step

Neither words nor media are logged unless `serve.log_requests` says so (media never).
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from actors.api import make_api, unknown_model
from actors.chat import Asked, ChatRequest, understood
from actors.emotion import BODIES, DOCUMENT, EmotionRequest, emotion_route
from actors.page import page_routes
from actors.serving.adapters import CHAMPION, Champion, ServeSpec, champion_card
from actors.serving.errors import ApiError, bad
from actors.serving.loopback import bind_to_the_node
from actors.serving.media import Decoder, Media, Source
from actors.serving.metrics import Metrics
from actors.serving.replies import Answer
from avere_ray.engine import (
    LiveEngine,
    LiveFace,
    NoRoom,
    Progress,
    Refused,
    Wanted,
    engine_environment,
    sampling_params,
)
from avere_ray.engine.insight_face import InsightFace
from avere_ray.errors import InputError, ModelError, StageError
from avere_ray.insight import analyse, to_json
from avere_ray.placement import label_selector
from avere_ray.records import DecodedClip
from avere_ray.synthetic.samples import default_references

STUCK_GRACE_S = 30.0
"""How long one step of the engine may take beyond the deadline before the replica counts as lost."""
FIRST_LOOK_S = 60.0
"""How long a replica waits for its first look at the champion before it is ready without."""
LOOKS_APART_S = 1.0
"""Seconds between two looks at the champion, at least."""
_ROOM_FOR_OTHERS = 24
"""Requests that may reach the replica beside those in work, so that health is told and refusals are worded by us."""
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
_log = logging.getLogger(__name__)


class ChatWorker:
    """One live engine and its decoders."""

    def __init__(self, spec: ServeSpec, replica: str = "0") -> None:
        self.spec = spec
        self.metrics = Metrics(replica)
        self.decoder = Decoder(spec.decode, spec.serve)
        self.engine = LiveEngine.on(
            spec.model, spec.rollout, lora_rank=spec.lora_rank, decode=spec.decode, adapters=spec.serve.adapters
        )
        self._markup = tuple(self.engine.processor.hf.tokenizer.get_added_vocab())
        for name, folder in spec.adapters.items():
            self.engine.load_adapter(name, folder)
        self.champion = Champion(spec, self.engine)
        self._references = default_references(spec.decode)
        self._warm_up()
        self._ended, self._look, self._looked = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._watch_champion, name="champion", daemon=True).start()
        self._looked.wait(FIRST_LOOK_S)

    @property
    def models(self) -> list[str]:
        """Ids of what is served, the base first."""
        return [self.spec.base, *self.spec.adapters, *([CHAMPION] if self.champion.name else [])]

    @property
    def in_engine(self) -> int:
        """Requests in the engine's batch."""
        return self.engine.in_work

    def problem(self) -> str | None:
        """Why this replica must be replaced, or None."""
        return self.engine.problem(self.spec.serve.deadline_s + STUCK_GRACE_S)

    def close(self) -> None:
        """Ends engine and decoders."""
        self._ended.set()
        self._look.set()
        self.engine.close()
        self.decoder.close()

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The reply to one request, within serve.deadline_s.

        Raises:
            ApiError: the request cannot be answered.
        """
        asked = self._understood(request)
        answer = Answer(asked.model, request.n, logprobs=asked.wanted.logprobs)
        async with aclosing(self._steps(asked)) as steps:
            async for progress in steps:
                answer.add(progress)
        self._note(asked, answer)
        return answer.body()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        """The reply as server-sent events.

        Raises:
            ApiError: the request cannot be answered, before the first event or later.
        """
        asked = self._understood(request)
        usage = bool(request.stream_options and request.stream_options.include_usage)
        answer = Answer(asked.model, request.n, logprobs=asked.wanted.logprobs, usage=usage)
        async with aclosing(self._steps(asked)) as steps:
            async for progress in steps:
                if events := "".join(answer.events(progress)):
                    yield events
        self._note(asked, answer)

    async def explain(self, request: EmotionRequest) -> dict[str, Any]:
        """What an answer about a clip rests on, within serve.deadline_s; see `avere_ray.insight` for its cost.

        Raises:
            ApiError: the request cannot be answered.
        """
        live = self.face(request.model or self.models[-1])
        self._check_words(request.question, request.answer or "")
        source = Source(url=request.url or "", data=request.clip or b"", param="clip" if request.clip else "url")
        limit = self.spec.serve.deadline_s
        try:
            async with asyncio.timeout(limit):
                clip = await self.decoder.decode(Media(video=source, own_sound=True))
                assert clip is not None
                insight = await asyncio.to_thread(
                    analyse, InsightFace(live), clip, request.question, self._references, answer=request.answer,
                    grounding=request.grounding, max_tokens=self.spec.rollout.max_tokens,
                )  # fmt: skip
        except TimeoutError as error:
            raise self._late() from error
        except (ModelError, InputError) as error:
            raise bad(str(error), None) from error
        except StageError as error:
            raise _replaced() from error
        finally:
            live.stop()  # the thread cannot be cancelled; what it waits for can
        return to_json(insight)

    def face(self, model: str) -> LiveFace:
        """The live engine for a thread that asks in batches, with what a model id stands for now.

        Raises:
            ApiError: no such model is served.
        """
        return LiveFace(self.engine, self._adapter(model), timeout_s=self.spec.serve.deadline_s + STUCK_GRACE_S)

    async def move_champion(self, folder: Path | None) -> dict[str, Any]:
        """Lets the name `champion` stand for another adapter: here at once, in other replicas when they look next.

        Raises:
            ApiError: the adapter cannot be served.
        """
        try:
            await asyncio.to_thread(self.champion.point_to, folder)
        except InputError as error:
            raise ApiError(422, str(error), code="adapter_refused", param="path") from error
        except StageError as error:
            raise ApiError(503, str(error), code="engine_failed") from error
        return champion_card(self.champion)

    def _understood(self, request: ChatRequest) -> Asked:
        self._adapter(request.model)  # a model that is not served is told first
        asked = understood(request, self.spec.serve, self.spec.rollout.max_tokens)
        self._refuse_markup(asked.words, "messages")
        return asked

    def _not_served(self, model: str) -> ApiError:
        if model == CHAMPION and self.champion.wanted:
            self._look.set()  # a pointer that another replica has left
            return ApiError(503, "the champion is not loaded here; try again later", code="model_not_loaded")
        return unknown_model(self.models)

    def _check_words(self, question: str, answer: str) -> None:
        """
        Raises:
            ApiError: they are too long, or hold markup of the model.
        """
        count, most = len(question) + len(answer), self.spec.serve.max_text
        if count > most:
            raise bad(f"question and answer have {count} characters, allowed are {most}", "question")
        self._refuse_markup(f"{question} {answer}", "question")

    def _refuse_markup(self, words: str, param: str) -> None:
        if found := next((m for m in self._markup if m in words), None):
            raise bad(f"the words contain {found!r}, which is markup of the model", param)

    def _late(self) -> ApiError:
        what = f"no answer within {self.spec.serve.deadline_s:g} s; try again later"
        return ApiError(503, what, code="deadline_exceeded")

    async def _steps(self, asked: Asked) -> AsyncGenerator[Progress, None]:
        """What the engine says, step by step, within the deadline."""
        began, end = time.perf_counter(), asyncio.get_running_loop().time() + self.spec.serve.deadline_s
        adapter = self._adapter(asked.model)  # before the champion can move
        try:
            async with asyncio.timeout_at(end):
                clip = await self.decoder.decode(asked.media)
            if clip is not None:
                self.metrics.decoded(time.perf_counter() - began)
            steps = self.engine.stream(self._prompt(asked, clip), asked.wanted, adapter=adapter)
            first = True
            async with aclosing(steps):
                while True:
                    async with asyncio.timeout_at(end):
                        progress = await anext(steps, None)
                    if progress is None:
                        return
                    if first and asked.wanted.stream:  # else it is the whole answer
                        self.metrics.first_token(time.perf_counter() - began)
                    first = False
                    yield progress
        except TimeoutError as error:
            raise self._late() from error
        except NoRoom as error:
            raise bad(str(error), "messages", "context_length_exceeded") from error
        except Refused as error:
            raise bad(str(error), None) from error
        except StageError as error:
            raise _replaced() from error

    def _prompt(self, asked: Asked, clip: DecodedClip | None) -> dict[str, Any]:
        """The request as the engine takes it; media are laid out as in training.

        Raises:
            ApiError: the model's template does not take the conversation.
        """
        try:
            ids = self.engine.processor.chat_ids(asked.conversation)
        except InputError as error:
            raise bad(str(error), "messages", "unsupported_value") from error
        media = asked.media
        shown = {} if clip is None else self.engine.family.engine_inputs(clip, video=media.seen, audio=media.heard)
        return {"prompt_token_ids": ids, **shown}

    def _adapter(self, model: str) -> str | None:
        """Name in the engine of what a model id stands for now; None is the base.

        Raises:
            ApiError: no such model is served, or it is a champion that this replica has not loaded yet.
        """
        if model == CHAMPION and (name := self.champion.name) is not None:
            return name
        if model not in (self.spec.base, *self.spec.adapters):
            raise self._not_served(model)
        return None if model == self.spec.base else model

    def _note(self, asked: Asked, answer: Answer) -> None:
        self.metrics.tokens(answer.prompt_tokens, answer.completion_tokens)
        if self.spec.serve.log_requests:
            _log.warning("asked %s: %r; answered: %r", asked.model, asked.words, answer.texts)

    def _warm_up(self) -> None:
        """Lets what is compiled at its first use be compiled before the first request."""
        prompt = {"prompt_token_ids": list(self.engine.processor.prompt_ids("What?", False, False))}
        wanted = [Wanted(max_tokens=2, seed=1, logprobs=1, stream=False), Wanted(max_tokens=2, json_object=True)]
        params = [sampling_params(w, 2, self.engine.processor) for w in wanted]
        self.engine.ask([prompt] * len(params), params, None, self.spec.serve.deadline_s)

    def _watch_champion(self) -> None:
        while not self._ended.is_set():
            self._look.clear()
            self.champion.look()
            self._looked.set()
            self._ended.wait(LOOKS_APART_S)  # however often it is asked for
            self._look.wait(self.spec.serve.champion_poll_s)


def _replaced() -> ApiError:
    return ApiError(503, "the engine is being replaced; try again later", code="engine_failed")


class ChatServer(ChatWorker):
    """The worker as Ray Serve runs it."""

    def __init__(self, spec: ServeSpec) -> None:
        bind_to_the_node(replica, ray.util.get_node_ip_address())
        super().__init__(spec, serve.get_replica_context().replica_id.unique_id)

    def check_health(self) -> None:
        """Tells Ray Serve to replace this replica when its engine is lost.

        Raises:
            StageError: it is.
        """
        if problem := self.problem():
            raise StageError(problem)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        routes = [*page_routes(), emotion_route(self.explain)]
        told = {"routes": routes, "bodies": BODIES, "documents": DOCUMENT}
        return make_api(self, self.spec.serve, self.spec.tokens, metrics=self.metrics, **told)  # type: ignore[arg-type]


def chat_application(spec: ServeSpec, *, threads: int) -> serve.Application:
    """What Ray Serve runs; the engine starts in the replica."""
    cfg = spec.serve
    replicas: dict[str, Any] = {"num_replicas": cfg.num_replicas}
    if cfg.max_replicas is not None:
        scaling = {"min_replicas": cfg.num_replicas, "max_replicas": cfg.max_replicas}
        replicas = {"autoscaling_config": {**scaling, "target_ongoing_requests": cfg.target_requests}}
    deployment = serve.deployment(
        serve.ingress()(ChatServer),
        name="chat",
        ray_actor_options={
            "num_cpus": spec.rollout.num_cpus,
            "num_gpus": spec.rollout.num_gpus,
            "label_selector": label_selector(spec.role),
            "runtime_env": {"env_vars": {**engine_environment(spec.rollout, threads), **_QUIET}},
        },
        max_ongoing_requests=cfg.max_requests + _ROOM_FOR_OTHERS,
        max_queued_requests=cfg.queued_requests,
        max_constructor_retry_count=1,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=cfg.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        **replicas,
    )
    return deployment.bind(spec)
