"""The worker around stand-ins for engine and decoder: deadlines, a lost engine; and what Ray Serve is told."""

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from test_live_engine import PROCESSOR, Stepper

from actors import server
from actors.chat import ChatRequest
from actors.emotion import EmotionRequest
from actors.server import ChatServer, ChatWorker
from actors.serving.adapters import Champion
from actors.serving.errors import ApiError
from actors.serving.media import Media
from actors.serving.metrics import Metrics
from avere_ray.config import RolloutConfig, RunConfig, ServeConfig
from avere_ray.engine import LiveEngine
from avere_ray.engine import live as live_module
from avere_ray.errors import StageError
from avere_ray.stages import write_text
from jobs.serve import ServeArgs, build_app, serve_spec

ASKED = ChatRequest.model_validate({"model": "base", "messages": [{"role": "user", "content": "What?"}]})


class SlowDecoder:
    """Takes as long as it is told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clip: Any = None

    async def decode(self, media: Media) -> Any:
        await asyncio.sleep(self.seconds)
        return self.clip

    def close(self) -> None:
        pass


@pytest.fixture
def stepper() -> Stepper:
    return Stepper()


@pytest.fixture
def worker(stepper: Stepper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatWorker]:
    monkeypatch.setattr(live_module, "refusals", lambda: (AssertionError, ValueError, LookupError))
    monkeypatch.setattr(LiveEngine, "_params", lambda self, wanted, tokens: SimpleNamespace(max_tokens=tokens))
    processor = SimpleNamespace(**vars(PROCESSOR), chat_ids=lambda turns: [5])
    made = ChatServer.__new__(ChatServer)  # without its engine on a model folder
    made.spec = SimpleNamespace(  # type: ignore[assignment]
        base="base", adapters={}, serve=ServeConfig(deadline_s=0.3), rollout=RolloutConfig(max_model_len=256),
        folder=tmp_path,
    )  # fmt: skip
    made.metrics, made.decoder = Metrics("0"), SlowDecoder()  # type: ignore[assignment]
    made.engine = LiveEngine(processor, None, made.spec.rollout, lambda: stepper)
    made.champion = Champion(made.spec, made.engine)
    made._markup, made._references = (), ()
    made._ended, made._look, made._looked = (threading.Event() for _ in range(3))
    yield made
    stepper.go.set()
    made.close()


def asked(**fields: Any) -> ChatRequest:
    return ASKED.model_copy(update=fields)


async def streamed(worker: ChatWorker, request: ChatRequest) -> list[str]:
    return [event async for event in worker.stream(request)]


def empties(worker: ChatWorker) -> bool:
    """Whether the engine has nothing in work, soon."""
    for _ in range(1000):
        if not worker.in_engine:
            return True
        threading.Event().wait(0.01)
    return False


def late(worker: ChatWorker, request: ChatRequest) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asyncio.run(streamed(worker, request) if request.stream else worker.answer(request))  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_time(worker: ChatWorker, stream: bool) -> None:
    worker.spec.serve = ServeConfig(deadline_s=30.0)  # type: ignore[misc]
    if stream:
        assert asyncio.run(streamed(worker, asked(stream=True, max_tokens=2)))[-1].endswith("data: [DONE]\n\n")
    else:
        reply = asyncio.run(worker.answer(asked(max_tokens=2)))
        assert reply["choices"][0]["message"]["content"] == "xx"
    text = worker.metrics.text(in_work=0, in_engine=0, healthy=True).decode()
    assert ('avere_ray_first_token_seconds_count{replica="0"} 1.0' in text) == stream


def test_a_champion_that_is_no_path_is_refused(worker: ChatWorker) -> None:
    with pytest.raises(ApiError, match="is no path") as caught:
        asyncio.run(worker.move_champion(Path("\0")))
    assert (caught.value.status, caught.value.code, caught.value.param) == (422, "adapter_refused", "path")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("slow", ["decoder", "engine"])
def test_past_the_deadline_a_request_is_refused_and_not_worked_for(
    worker: ChatWorker, stepper: Stepper, slow: str, stream: bool
) -> None:
    if slow == "decoder":
        worker.decoder.seconds = 60.0  # type: ignore[attr-defined]
    else:
        stepper.go.clear()
    error = late(worker, asked(stream=stream))
    assert (error.status, error.code) == (503, "deadline_exceeded")
    assert error.retry_after_s is not None and error.retry_after_s >= 1
    stepper.go.set()
    assert empties(worker)


@pytest.mark.parametrize("leaves", [True, False])
def test_an_explanation_that_nobody_waits_for_leaves_the_engine(
    worker: ChatWorker, stepper: Stepper, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    ended = threading.Event()

    def analyse(face: Any, *_: Any, **__: Any) -> None:
        try:
            live = face._engine
            live._live.ask([{"prompt_token_ids": [5]}] * 4, [SimpleNamespace(max_tokens=900)] * 4, None, 60.0,
                           stopped=live._stopped)  # fmt: skip
        finally:
            ended.set()

    monkeypatch.setattr(server, "analyse", analyse)
    worker.decoder.clip = object()  # type: ignore[attr-defined]
    worker.spec.serve = ServeConfig(deadline_s=60.0 if leaves else 0.3)  # type: ignore[misc]
    request = EmotionRequest(model="base", question="Why?", answer=None, grounding=True, clip=b"x", url=None)
    stepper.go.clear()

    async def ask() -> None:
        task = asyncio.create_task(worker.explain(request))
        while not worker.in_engine:
            await asyncio.sleep(0.01)
        if leaves:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if leaves else ApiError):
            await task
        assert ended.wait(10)

    asyncio.run(ask())
    stepper.go.set()
    assert empties(worker)


def test_the_words_of_an_explanation_are_limited_in_all(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    analysed: list[str] = []
    monkeypatch.setattr(server, "analyse", lambda face, clip, question, *_, answer, **__: analysed.append(answer))
    monkeypatch.setattr(server, "to_json", lambda insight: {})
    worker.decoder.clip = object()  # type: ignore[attr-defined]
    worker.spec.serve = ServeConfig(deadline_s=30.0, max_text=10)  # type: ignore[misc]
    request = EmotionRequest(model="base", question="Why?", answer="Tears.", grounding=True, clip=b"x", url=None)
    assert asyncio.run(worker.explain(request)) == {}
    with pytest.raises(ApiError, match="have 11 characters, allowed are 10") as caught:
        asyncio.run(worker.explain(dataclasses.replace(request, answer="Tears!!")))
    assert (caught.value.status, caught.value.param, analysed) == (400, "question", ["Tears."])


def test_a_champion_that_is_not_loaded_yet_is_asked_for_again(worker: ChatWorker, tmp_path: Path) -> None:
    body = asked(model="champion")
    error = late(worker, body)
    assert (error.status, error.code) == (404, "model_not_found")
    (tmp_path / "champion.json").write_text("{}")  # as another replica leaves it
    error = late(worker, body)
    assert (error.status, error.code, worker._look.is_set()) == (503, "model_not_loaded", True)
    assert error.retry_after_s is not None
    with pytest.raises(ApiError, match="not loaded here"):
        worker.face("champion")


def test_a_champion_is_looked_at_when_it_is_asked_for(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(Champion, "wanted", True)
    monkeypatch.setattr(worker.champion, "look", lambda: looks.append(1))
    worker.spec.serve = ServeConfig(champion_poll_s=600.0)  # type: ignore[misc]
    monkeypatch.setattr(server, "LOOKS_APART_S", 0.0)
    watch = threading.Thread(target=worker._watch_champion)
    watch.start()
    assert worker._looked.wait(10)
    late(worker, asked(model="champion"))
    for _ in range(1000):
        if len(looks) > 1:
            break
        threading.Event().wait(0.01)
    worker._ended.set()
    worker._look.set()
    watch.join(10)
    assert 1 < len(looks) < 4


def test_a_champion_that_is_taken_back_is_gone_when_it_is_looked_at(worker: ChatWorker) -> None:
    worker.champion.name = "champion-1"  # of a pointer that is there no more
    assert worker.models == ["base", "champion"]
    watch = threading.Thread(target=worker._watch_champion)
    watch.start()
    assert worker._looked.wait(10)
    worker._ended.set()
    worker._look.set()
    watch.join(10)
    assert worker.models == ["base"]
    error = late(worker, asked(model="champion"))
    assert (error.status, error.code) == (404, "model_not_found")
    with pytest.raises(ApiError, match="served are base"):
        worker.face("champion")


def test_a_request_goes_on_with_the_champion_it_began_with(
    worker: ChatWorker, stepper: Stepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.spec.serve = ServeConfig(deadline_s=30.0)  # type: ignore[misc]
    worker.champion.name = "champion-1"
    worker.engine._loras["champion-1"] = "weights"
    used: list[Any] = []
    add = stepper.add_request

    def added(name: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        used.append(lora_request)
        add(name, prompt, params)

    async def decode(media: Media) -> None:
        worker.champion.name = None  # taken back meanwhile

    monkeypatch.setattr(stepper, "add_request", added)
    monkeypatch.setattr(worker.decoder, "decode", decode)
    asyncio.run(worker.answer(asked(model="champion", max_tokens=2)))
    assert used == ["weights"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lost_engine_refuses_for_a_while_and_has_the_replica_replaced(worker: ChatWorker, stepper: Stepper) -> None:
    worker.check_health()  # type: ignore[attr-defined]
    worker.spec.serve = ServeConfig(deadline_s=30.0)  # type: ignore[misc]
    stepper.error = KeyError("inside")
    error = late(worker, asked())
    assert (error.status, error.code) == (503, "engine_failed")
    with pytest.raises(StageError, match="the engine failed"):
        worker.check_health()  # type: ignore[attr-defined]


def test_the_application_of_a_run_builds_nothing_and_passes_the_settings_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda *args, **options: pytest.fail("the builder started Ray"))
    scaling = {"num_replicas": 2, "max_replicas": 5, "target_requests": 3, "max_requests": 7, "queued_requests": 11,
               "drain_s": 13.0}  # fmt: skip
    for serve in (scaling, {"num_replicas": 2}):
        cfg = RunConfig.model_validate({"run_dir": tmp_path / "run", "serve": serve})
        write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
        app = build_app(ServeArgs(run_dir=cfg.run_dir))
        config = app._bound_deployment._deployment_config
        found = config.autoscaling_config
        if "max_replicas" in serve:
            assert found is not None
            assert (found.min_replicas, found.max_replicas, found.target_ongoing_requests) == (2, 5, 3)
            assert config.max_ongoing_requests >= 7 and config.max_queued_requests == 11
            assert config.graceful_shutdown_timeout_s == 13.0
        else:
            assert (found, config.num_replicas) == (None, 2)
    assert serve_spec(cfg).base == "tiny_base"
