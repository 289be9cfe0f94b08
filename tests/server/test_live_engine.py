"""The live engine's thread around a stand-in for vLLM's engine: who hears what, who leaves, and what ends it."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.config import RolloutConfig
from avere_ray.engine import LiveEngine, LiveFace, Progress, Refused, Wanted
from avere_ray.engine import live as live_module
from avere_ray.errors import ModelError, StageError

PROCESSOR = SimpleNamespace(video_id=1, audio_id=2, end_id=3)


class Stepper:
    """Adds one letter a step to every request; fails, refuses or waits on demand."""

    def __init__(self) -> None:
        self.renderer = SimpleNamespace(render_cmpl=self.render)
        self.open: dict[str, int] = {}
        self.params: dict[str, Any] = {}
        self.aborted: list[str] = []
        self.error: Exception | None = None
        self.last = "stop"
        """Why an answer ends."""
        self.add_lora: Any = None
        self.go = threading.Event()
        self.go.set()

    def render(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"prompt_token_ids": p["prompt_token_ids"]} for p in prompts]

    def add_request(self, name: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        if prompt["prompt_token_ids"] == [13]:
            raise ValueError("[18:30:23] /x/y.cc:12: no thirteen")
        self.open[name], self.params[name] = 0, params

    def has_unfinished_requests(self) -> bool:
        return bool(self.open)

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.open.pop(name, None)
        self.aborted += names

    def step(self) -> list[Any]:
        assert self.go.wait(timeout=10)
        if self.error:
            raise self.error
        outputs = []
        for name in list(self.open):
            self.open[name] += 1
            last = self.open[name] >= self.params[name].max_tokens
            out = SimpleNamespace(
                index=0, text="x", token_ids=[7], logprobs=None, finish_reason=self.last if last else None
            )
            outputs.append(SimpleNamespace(request_id=name, prompt_token_ids=[5], outputs=[out], finished=last))
            if last:
                del self.open[name]
        return outputs


@pytest.fixture
def stepper() -> Stepper:
    return Stepper()


@pytest.fixture
def live(stepper: Stepper, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveEngine]:
    monkeypatch.setattr(
        live_module, "refusals", lambda: (AssertionError, ValueError, LookupError)
    )  # vLLM's own take long to import
    monkeypatch.setattr(LiveEngine, "_params", lambda self, wanted, tokens: SimpleNamespace(max_tokens=tokens))
    made = LiveEngine(PROCESSOR, None, RolloutConfig(max_model_len=32), lambda: stepper)
    yield made
    stepper.go.set()
    made.close()


async def ask(live: LiveEngine, tokens: int = 3, prompt: int = 5, **fields: Any) -> list[Progress]:
    return [p async for p in live.stream({"prompt_token_ids": [prompt]}, Wanted(max_tokens=tokens, **fields))]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def test_every_caller_hears_its_own_steps(live: LiveEngine) -> None:
    async def crowd() -> list[list[Progress]]:
        return await asyncio.gather(*[ask(live, tokens=n) for n in range(1, 9)])

    heard = asyncio.run(crowd())
    assert [sum(len(step.pieces) for step in steps) for steps in heard] == list(range(1, 9))
    assert all(steps[-1].finished and not any(p.finished for p in steps[:-1]) for steps in heard)
    assert heard[2][0].prompt_tokens == 1
    assert live.in_work == 0


def test_a_paced_answer_is_told_in_few_pieces_and_its_end_at_once(live: LiveEngine) -> None:
    async def paced(pace_s: float) -> list[Progress]:
        wanted = Wanted(max_tokens=9)
        return [p async for p in live.stream({"prompt_token_ids": [5]}, wanted, pace_s=pace_s)]

    async def both() -> tuple[list[Progress], list[Progress]]:
        async with asyncio.timeout(30):  # not the pace: the end is not waited for
            return await paced(0.0), await paced(600.0)

    quick, slow = asyncio.run(both())
    assert [sum(len(step.pieces) for step in steps) for steps in (quick, slow)] == [9, 9]
    assert len(slow) <= 2 and slow[-1].finished


def test_who_leaves_is_taken_out_of_the_batch(live: LiveEngine, stepper: Stepper) -> None:
    async def leave() -> None:
        task = asyncio.create_task(ask(live, tokens=20))
        stepper.go.clear()
        await until(lambda: live.in_work == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stepper.go.set()
        await until(lambda: live.in_work == 0 and bool(stepper.aborted))
        assert sum(len(step.pieces) for step in await ask(live, tokens=2)) == 2

    asyncio.run(leave())


def test_a_request_that_is_refused_concerns_nobody_else(live: LiveEngine) -> None:
    async def mixed() -> list[Any]:
        asked = [ask(live), ask(live, prompt=13), ask(live, tokens=32), ask(live)]
        return await asyncio.gather(*asked, return_exceptions=True)

    good, refused, long, other = asyncio.run(mixed())
    assert [sum(len(step.pieces) for step in steps) for steps in (good, other)] == [3, 3]
    assert isinstance(refused, Refused)
    assert str(refused) == "the engine does not take the request: no thirteen"
    assert isinstance(long, Refused)
    assert "together allowed are 32" in str(long)
    assert live.problem(1.0) is None


def test_an_answer_of_open_length_takes_the_room_there_is(live: LiveEngine, stepper: Stepper) -> None:
    asyncio.run(ask(live, tokens=0 or None))  # type: ignore[arg-type]
    assert [p.max_tokens for p in stepper.params.values()] == [31]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_that_fails_ends_the_engine_for_all(live: LiveEngine, stepper: Stepper) -> None:
    async def fail() -> list[Any]:
        stepper.go.clear()
        waiting = [asyncio.create_task(ask(live)) for _ in range(3)]
        await until(lambda: live.in_work >= 1)
        stepper.error = KeyError("inside")
        stepper.go.set()
        first = await asyncio.gather(*waiting, return_exceptions=True)
        return [*first, *await asyncio.gather(ask(live), return_exceptions=True)]

    heard = asyncio.run(fail())
    assert [type(error) for error in heard] == [StageError] * 4
    assert live.problem(1.0) == "the engine failed; its log says why"


def test_a_step_without_end_is_told(live: LiveEngine, stepper: Stepper) -> None:
    async def hang() -> None:
        stepper.go.clear()
        task = asyncio.create_task(ask(live))
        await until(lambda: live.problem(0.0) is not None)
        assert "busy with one step" in (live.problem(0.0) or "")
        assert live.problem(60.0) is None
        stepper.go.set()
        await task

    asyncio.run(hang())


def test_threads_ask_in_batches(live: LiveEngine, stepper: Stepper) -> None:
    wanted = SimpleNamespace(max_tokens=2)
    outputs = live.ask([{"prompt_token_ids": [5]}] * 3, [wanted] * 3, None, 10.0)
    assert [o.finished for o in outputs] == [True] * 3
    with pytest.raises(Refused, match="no thirteen"):
        live.ask([{"prompt_token_ids": [13]}], [wanted], None, 10.0)
    with pytest.raises(Refused, match="other"):
        live.ask([{"prompt_token_ids": [5]}], [wanted], "other", 10.0)
    stepper.go.clear()
    with pytest.raises(StageError, match="in time"):
        live.ask([{"prompt_token_ids": [5]}], [wanted], None, 0.01)


def test_an_answer_that_the_engine_breaks_off_is_no_answer(live: LiveEngine, stepper: Stepper) -> None:
    stepper.last = "error"
    for fields, error, words in (
        ({}, StageError, "ended the request with an error"),
        ({"schema": {"type": "object"}}, Refused, "JSON schema"),
        ({"json_object": True}, Refused, "JSON schema"),
    ):
        with pytest.raises(error, match=words):
            asyncio.run(ask(live, **fields))
    with pytest.raises(StageError, match="ended the request with an error"):
        live.ask([{"prompt_token_ids": [5]}], [SimpleNamespace(max_tokens=2)], None, 10.0)
    assert live.problem(1.0) is None


def test_a_request_that_hangs_while_it_is_read_is_told(live: LiveEngine, stepper: Stepper) -> None:
    go, render = threading.Event(), stepper.render

    def hang(prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert go.wait(timeout=10)
        return render(prompts)

    stepper.renderer.render_cmpl = hang

    async def waits() -> None:
        task = asyncio.create_task(ask(live))
        await until(lambda: live.problem(0.0) is not None)
        assert live.problem(60.0) is None
        go.set()
        await task

    asyncio.run(waits())


def test_what_a_request_or_an_adapter_sets_off_does_not_end_the_engine(
    live: LiveEngine, stepper: Stepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = SimpleNamespace(LoRARequest=lambda *fields: fields)  # vLLM takes long to import
    monkeypatch.setitem(sys.modules, "vllm.lora.request", requests)  # type: ignore[arg-type]

    class HeaderTooLarge(Exception):
        pass

    def unread(*_: Any, **__: Any) -> None:
        raise AssertionError("a LoRA layer of another shape")

    def broken(*_: Any) -> None:
        raise HeaderTooLarge("the header is too large")

    add, stepper.add_request = stepper.add_request, unread  # type: ignore[method-assign]
    with pytest.raises(Refused, match="another shape"):
        asyncio.run(ask(live))
    stepper.add_request, stepper.add_lora = add, broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"does not accept adapter .*the header is too large"):
        live.load_adapter("bad", Path("adapter"), timeout_s=10.0)
    assert live.problem(1.0) is None
    assert asyncio.run(ask(live))[-1].finished


def test_a_batch_that_is_stopped_leaves_the_engine(live: LiveEngine, stepper: Stepper) -> None:
    face = LiveFace(live, timeout_s=60.0)
    heard: list[BaseException] = []

    def work() -> None:
        for _ in range(2):
            try:
                face._live.ask([{"prompt_token_ids": [5]}] * 3, [SimpleNamespace(max_tokens=500)] * 3, None, 60.0,
                               stopped=face._stopped)  # fmt: skip
            except StageError as error:
                heard.append(error)

    stepper.go.clear()
    thread = threading.Thread(target=work)
    thread.start()
    asyncio.run(until(lambda: live.in_work >= 1))
    face.stop()
    face.stop()
    thread.join(timeout=10)
    assert [str(error) for error in heard] == ["nobody waits for the answer any more"] * 2
    stepper.go.set()
    asyncio.run(until(lambda: live.in_work == 0))


def test_an_engine_that_cannot_start() -> None:
    def start() -> Any:
        raise ModelError("no weights")

    with pytest.raises(ModelError, match="no weights"):
        LiveEngine(PROCESSOR, None, RolloutConfig(), start)
