"""OpenAI's own client and types against the routes: what it sends by itself is taken."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from chatmaker import TEXT, chat, read
from openai.types.chat import ChatCompletionMessage
from test_chat_api import Worker

from actors.api import make_api
from actors.chat import ChatRequest
from actors.serving.replies import Answer
from avere_ray.config import ServeConfig
from avere_ray.engine import Piece, Progress


class Answering(Worker):
    """Answers as the server does, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ChatRequest] = []

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        self.asked.append(request)
        reply = Answer(request.model, request.n, logprobs=None)
        reply.add(Progress(prompt_tokens=5, pieces=(Piece(index=0, text="Sad.", tokens=2),), finished=True))
        return reply.body()


def test_an_answer_is_sent_back_as_it_came() -> None:
    worker = Answering()

    async def two_turns() -> str | None:
        transport = httpx.ASGITransport(make_api(worker, ServeConfig()))
        http = httpx.AsyncClient(transport=transport)
        client = openai.AsyncOpenAI(base_url="http://127.0.0.1:8000/v1", api_key="x", http_client=http, max_retries=0)
        turns: list[Any] = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "What?", "name": "ann"},
        ]
        async with client:
            first = await client.chat.completions.create(
                model="base", messages=turns, n=None, temperature=None, top_p=None
            )
            turns += [first.choices[0].message, {"role": "user", "content": "Sure?"}]
            second = await client.chat.completions.create(model="base", messages=turns)
        return second.choices[0].message.content

    assert asyncio.run(two_turns()) == "Sad."
    first, second = worker.asked
    assert (first.n, first.temperature, first.top_p) == (1, 1.0, 1.0)
    assert [m.role for m in second.messages] == ["developer", "user", "assistant", "user"]


@pytest.mark.parametrize("unset", [True, False])
def test_every_field_of_an_answer_may_be_empty(unset: bool) -> None:
    message = ChatCompletionMessage(role="assistant", content="Sad.", refusal=None, annotations=[])
    body = chat(TEXT)
    body["messages"] += [message.model_dump(exclude_unset=unset), {"role": "user", "content": "Sure?"}]
    body["messages"].insert(0, {"role": "developer", "content": "Be brief."})
    asked = read({**body, "n": None, "temperature": None, "top_p": None})
    assert [turn["role"] for turn in asked.conversation] == ["system", "user", "assistant", "user"]
    assert (asked.wanted.n, asked.wanted.temperature, asked.wanted.top_p) == (1, 1.0, 1.0)
