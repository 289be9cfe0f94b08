"""Answers questions about clips behind Ray Serve: one replica, one engine, base and adapter by model name.

    client -> Guard and routes (actors/api.py) -> ChatWorker: decode in a killable child -> engine

Clips are decoded by our own decoder with its limits; nothing is fetched, and neither words nor media are logged.
"""

import asyncio
import functools
import secrets
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from actors.api import MAX_REQUESTS, make_api
from actors.chat import ApiError, ChatRequest, ServeSpec, chat_reply, question_and_video
from avere_ray.config import RemoteConfig
from avere_ray.data import decode_one
from avere_ray.engine import Engine, engine_environment
from avere_ray.errors import ClipDecodeError, StageError
from avere_ray.records import Clip, DecodedClip, Query, Rollout

STUCK_GRACE_S = 30.0
"""How long the engine may be busy beyond the deadline before the replica counts as lost."""
_ROOM_FOR_OTHERS = 24
"""Requests that may reach the replica beside those in work, so that health is told and refusals are worded by us."""
_QUEUED = 256
"""Requests the proxy may hold while it looks for room in the replica; more get a plain 503 from Ray Serve."""
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


class ChatWorker:
    """One engine and one decoder, each with a thread of its own; calls to each wait in line."""

    def __init__(self, spec: ServeSpec) -> None:
        self.spec = spec
        self._decoder = ThreadPoolExecutor(1, "decode")
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._busy_since: float | None = None
        self._failure: str | None = None
        start = functools.partial(Engine, spec.model, spec.rollout, lora_rank=spec.lora_rank, decode=spec.decode)
        self.engine = self._engine_thread.submit(start).result()
        self._markup = tuple(self.engine.processor.hf.tokenizer.get_added_vocab())

    @property
    def models(self) -> list[str]:
        """Ids of what is served, the base first."""
        return list(self.spec.models)

    def problem(self) -> str | None:
        """Why this replica must be replaced, or None."""
        limit = self.spec.rollout.deadline_s + STUCK_GRACE_S
        if self._busy_since is not None and time.monotonic() - self._busy_since > limit:
            return f"the engine has been busy with one request for more than {limit:g} s"
        return self._failure

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The reply to one request, within rollout.deadline_s.

        Raises:
            ApiError: the request cannot be answered.
        """
        question, media = question_and_video(request)
        self._check(request, question)
        try:
            async with asyncio.timeout(self.spec.rollout.deadline_s):
                loop = asyncio.get_running_loop()
                clip = await loop.run_in_executor(self._decoder, self._decode, media)
                return await loop.run_in_executor(self._engine_thread, self._generate, request, question, clip)
        except TimeoutError as error:
            raise ApiError(
                503, f"no answer within {self.spec.rollout.deadline_s:g} s; try again later", code="deadline_exceeded"
            ) from error

    def _check(self, request: ChatRequest, question: str) -> None:
        if request.model not in self.spec.models:
            raise ApiError(
                404, f"unknown model; served are {', '.join(self.spec.models)}", code="model_not_found", param="model"
            )
        if found := next((m for m in self._markup if m in question), None):
            raise ApiError(
                400, f"the question contains {found!r}, which is markup of the model", code="invalid_value",
                param="messages.0.content",
            )  # fmt: skip

    def _decode(self, media: bytes) -> DecodedClip:
        with tempfile.NamedTemporaryFile(prefix="clip-", suffix=".mp4") as file:
            file.write(media)
            file.flush()
            clip = Clip(clip_id="request", uri=file.name)
            try:
                return decode_one(clip, Path(file.name).parent, self.spec.decode, RemoteConfig())
            except ClipDecodeError as error:
                message = error.message.replace(file.name, "the clip")
                raise ApiError(422, message, code=error.reason, param="messages.0.content") from error
            except StageError as error:
                raise ApiError(503, "the decoder cannot be started; try again later", code="overloaded") from error

    def _generate(self, request: ChatRequest, question: str, clip: DecodedClip) -> dict[str, Any]:
        """Runs in the engine's thread. An engine that failed once may hold half a request, so it is not used again."""
        if self._failure:
            raise ApiError(503, "the engine is being replaced; try again later", code="engine_failed")
        prompt_tokens = self._prompt_tokens(request, question, clip)
        self._busy_since = time.monotonic()
        try:
            rollouts = self._sample(request, question, clip)
        except Exception as error:
            self._failure = f"the engine failed: {type(error).__name__}"
            raise
        finally:
            self._busy_since = None
        return chat_reply(request.model, rollouts, prompt_tokens)

    def _prompt_tokens(self, request: ChatRequest, question: str, clip: DecodedClip) -> int:
        processor = self.engine.processor
        media = (clip.clip_id, processor.features(clip))
        tokens = len(processor.sample(question, (), video=media, audio=media).token_ids)
        wanted, limit = self._max_tokens(request), self.spec.rollout.max_model_len
        if tokens + wanted > limit:
            raise ApiError(
                400,
                f"clip and question take {tokens} tokens and max_tokens is {wanted}; together allowed are {limit}",
                code="context_length_exceeded",
                param="messages",
            )
        return tokens

    def _sample(self, request: ChatRequest, question: str, clip: DecodedClip) -> list[Rollout]:
        folder, version = self.spec.models[request.model]
        if self.engine.version != version:
            self.engine.load_adapter(folder, version)
        query = Query(query_id="request", clip_id=clip.clip_id, modality="audio_video", task="request", prompt=question)
        return self.engine.generate(
            [query],
            [clip],
            n=request.n,
            temperature=request.temperature,
            max_tokens=self._max_tokens(request),
            seed=secrets.randbits(62) if request.seed is None else request.seed,
        )[0]

    def _max_tokens(self, request: ChatRequest) -> int:
        return request.max_tokens or self.spec.rollout.max_tokens


class ChatServer(ChatWorker):
    """The worker as Ray Serve runs it."""

    def check_health(self) -> None:
        """Tells Ray Serve to replace this replica when its engine is lost.

        Raises:
            StageError: it is.
        """
        if problem := self.problem():
            raise StageError(problem)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return make_api(self, self.spec.token_sha256)


def chat_application(spec: ServeSpec, *, threads: int) -> serve.Application:
    """What Ray Serve runs; the engine starts in the replica."""
    deployment = serve.deployment(
        serve.ingress()(ChatServer),
        name="chat",
        num_replicas=1,
        ray_actor_options={
            "num_cpus": spec.rollout.num_cpus,
            "num_gpus": spec.rollout.num_gpus,
            "runtime_env": {"env_vars": {**engine_environment(spec.rollout, threads), **_QUIET}},
        },
        max_ongoing_requests=MAX_REQUESTS + _ROOM_FOR_OTHERS,
        max_queued_requests=_QUEUED,
        max_constructor_retry_count=1,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    return deployment.bind(spec)
