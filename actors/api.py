"""The routes of the server; no Ray, no engine.

    GET  /v1/models, /v1/models/ID   base, adapters, champion
    POST /v1/chat/completions        OpenAI's chat, whole or as a stream of server-sent events
    POST /v1/admin/champion          moves the champion; for tokens that may
    GET  /healthz, /readyz, /metrics for balancers and Prometheus; /openapi.json for clients

Everything passes the `Guard` first. Further routes (a page, POST /v1/emotion) are handed to `make_api`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

import avere_ray
from actors.chat import ChatRequest, Fields, explain
from actors.serving.errors import ApiError, json_reply
from actors.serving.guard import Guard
from actors.serving.metrics import CONTENT_TYPE, Metrics
from actors.serving.replies import error_event, model_card, model_list
from actors.serving.tokens import Token
from avere_ray.config import ServeConfig

CHAT = "/v1/chat/completions"
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
_EVENT_STREAM = "text/event-stream"


class ErrorText(BaseModel):
    """What is wrong with a request, or with the server."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """Body of every reply that is no answer."""

    error: ErrorText


class ChampionWanted(Fields):
    """Body of POST /v1/admin/champion."""

    path: str | None = None
    """Folder of an adapter, on the server; None goes back to what the config says and looks at it at once. Where that
    names none, there is no champion any more."""


class Answerer(Protocol):
    """What the routes ask of the worker behind them."""

    @property
    def models(self) -> list[str]:
        """Ids of what is served."""

    @property
    def in_engine(self) -> int:
        """Requests in the engine's batch."""

    def problem(self) -> str | None:
        """Why nothing can be answered, or None."""

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The reply; raises ApiError."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        """The reply as server-sent events; raises ApiError before the first or later."""

    async def move_champion(self, folder: Path | None) -> dict[str, Any]:
        """Moves the champion and says what it is now; raises ApiError."""


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)
}


def make_api(
    worker: Answerer,
    serve: ServeConfig,
    tokens: Sequence[Token] = (),
    *,
    metrics: Metrics | None = None,
    routes: Sequence[BaseRoute] = (),
    bodies: Mapping[str, tuple[str, ...]] | None = None,
    documents: Mapping[str, Mapping[str, Any]] | None = None,
) -> ASGIApp:
    """The application of one replica.

    Args:
        routes: further routes, as Starlette has them.
        bodies: content types that their bodies may have, by path, where that is not JSON alone.
        documents: what the OpenAPI document says of them, by path.
    """
    metrics = metrics or Metrics("0")
    api = FastAPI(title="avere_ray", version=avere_ray.__version__, docs_url=None, redoc_url=None, responses=_REFUSALS)
    _add_models(api, worker)
    _add_chat(api, worker)
    _add_admin(api, worker)
    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _error_reply)
    guard = Guard(api, serve=serve, tokens=tokens, metrics=metrics, bodies=bodies or {})
    _add_health(api, worker, guard)
    api.router.routes.extend(routes)
    guard.routes = frozenset(str(getattr(route, "path", "")) for route in api.routes)
    api.openapi()["paths"].update(documents or {})  # the document is made once and kept
    return guard


def _add_models(api: FastAPI, worker: Answerer) -> None:
    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return model_list(worker.models)

    @api.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        if model not in worker.models:
            raise unknown_model(worker.models)
        return model_card(model)


def _add_chat(api: FastAPI, worker: Answerer) -> None:
    @api.post(CHAT, response_model=None)
    async def chat_completions(request: ChatRequest) -> Response:
        if not request.stream:
            return JSONResponse(await worker.answer(request))
        events = worker.stream(request)
        first = await anext(events)  # what is refused is refused with a status
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(_sent(first, events), media_type=_EVENT_STREAM, headers=headers)


async def _sent(first: str, events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """The events; a failure on the way is the last one, without [DONE]."""
    try:
        yield first
        async for event in events:
            yield event
    except ApiError as error:
        yield error_event(error.body())
    finally:
        await events.aclose()


def _add_admin(api: FastAPI, worker: Answerer) -> None:
    @api.post("/v1/admin/champion")
    async def champion(wanted: ChampionWanted, request: Request) -> dict[str, Any]:
        if not request.state.token.admin:
            raise ApiError(403, "this needs an administrator's token (AVERE_RAY_ADMIN_TOKEN)", code="forbidden")
        return await worker.move_champion(Path(wanted.path) if wanted.path else None)


def _add_health(api: FastAPI, worker: Answerer, guard: Guard) -> None:
    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        if problem := worker.problem():
            raise ApiError(503, problem, code="unhealthy")
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        if problem := worker.problem():
            raise ApiError(503, problem, code="unhealthy")
        if guard.in_work >= guard.serve.max_requests:
            raise ApiError(503, "as many requests are in work as there may be", code="overloaded")
        return {"status": "ready"}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        healthy = worker.problem() is None
        text = guard.metrics.text(in_work=guard.in_work, in_engine=worker.in_engine, healthy=healthy)
        return Response(text, media_type=CONTENT_TYPE)


def unknown_model(models: Sequence[str]) -> ApiError:
    """A model that is not served."""
    return ApiError(404, f"unknown model; served are {', '.join(models)}", code="model_not_found", param="model")


async def _error_reply(request: Request, error: Exception) -> Response:
    return json_reply(_as_api_error(error))


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return explain(error.errors())
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), code=_HTTP_CODES.get(error.status_code, "bad_request"))
    return ApiError(500, "the server failed on this request; its log says why", code="internal_error")
