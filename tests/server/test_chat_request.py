"""Chat requests: what is read, and what is refused and how."""

import json
from typing import Any

import pytest
from chatmaker import DATA, SOUND, SOUND_URL, TEXT, VIDEO, chat, read
from pydantic import ValidationError

from actors.api import ChampionWanted
from actors.chat import ChatRequest, explain
from actors.serving.errors import ApiError


def own(used: Any) -> dict[str, Any]:
    return {"mm_processor_kwargs": {"use_audio_in_video": used}}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def deep(levels: int) -> dict[str, Any]:
    return {"items": deep(levels - 1)} if levels else {}


def refusal(body: Any) -> ApiError:
    """How a body is refused."""
    with pytest.raises(ApiError) as caught:
        try:
            read(body)
        except ValidationError as error:
            raise explain(error.errors()) from error
    return caught.value


def test_a_conversation_is_read_in_the_order_of_training() -> None:
    asked = read(
        {
            "model": "base",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [TEXT, VIDEO, {"type": "text", "text": "And why?"}]},
                {"role": "assistant", "content": "Sad."},
                {"role": "user", "content": "Sure?"},
            ],
        }
    )
    words = {"type": "text", "text": "What does the person feel?\nAnd why?"}
    assert asked.conversation == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video"}, {"type": "audio"}, words]},
        {"role": "assistant", "content": [{"type": "text", "text": "Sad."}]},
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    ]
    assert asked.media.video is not None
    assert asked.media.video.param == "messages.1.content.1.video_url.url"


@pytest.mark.parametrize(
    ("content", "fields", "seen", "heard", "own_sound"),
    [
        ((VIDEO,), {}, True, True, True),
        ((VIDEO,), own(True), True, True, True),
        ((VIDEO,), own(False), True, False, False),
        ((VIDEO, SOUND), {}, True, True, False),
        ((VIDEO, SOUND_URL), own(False), True, True, False),
        ((SOUND,), {}, False, True, False),
        ((SOUND_URL,), {}, False, True, False),
        ((), {}, False, False, False),
    ],
)
def test_media_in_every_combination(content: Any, fields: Any, seen: bool, heard: bool, own_sound: bool) -> None:
    media = read(chat(TEXT, *content, **fields)).media
    assert (media.seen, media.heard, media.own_sound) == (seen, heard, own_sound)
    assert "use_audio_in_video" in media.remedy


def test_how_it_is_answered() -> None:
    wanted = read(
        chat(TEXT, n=2, temperature=1, top_p=0.5, max_completion_tokens=7, seed=-1, stop="x", logprobs=True,
             top_logprobs=3, stream=True, stream_options={"include_usage": True})
    ).wanted  # fmt: skip
    assert (wanted.n, wanted.temperature, wanted.top_p, wanted.max_tokens) == (2, 1.0, 0.5, 7)
    assert (wanted.stop, wanted.logprobs, wanted.stream) == (("x",), 3, True)
    assert wanted.seed == read(chat(TEXT, seed=-1)).wanted.seed != read(chat(TEXT, seed=1)).wanted.seed
    assert wanted.seed is not None and 0 <= wanted.seed < 2**31
    assert read(chat(TEXT)).wanted.seed != read(chat(TEXT)).wanted.seed
    assert read(chat(TEXT, logprobs=True)).wanted.logprobs == 0
    assert read(chat(TEXT)).wanted.logprobs is None
    assert read(chat(TEXT, **schema({"type": "object"}))).wanted.schema == {"type": "object"}
    assert read(chat(TEXT, response_format={"type": "json_object"})).wanted.json_object


@pytest.mark.parametrize(
    ("body", "code", "param", "words"),
    [
        (chat(TEXT, VIDEO, VIDEO), "several_videos", "messages.0.content.2.video_url.url", "2 video files"),
        (chat(TEXT, SOUND, SOUND_URL), "several_sounds", "messages.0.content.2.audio_url.url", "2 sound files"),
        (chat(TEXT, SOUND, **own(True)), "invalid_value", "mm_processor_kwargs.use_audio_in_video", "no video"),
        (chat(TEXT, VIDEO, SOUND, **own(True)), "invalid_value", None, "besides"),
        (chat(TEXT, VIDEO, mm_processor_kwargs={"fps": 2}), "unsupported_parameter", "mm_processor_kwargs.fps", ""),
        (chat(VIDEO), "invalid_value", "messages.0.content", "no question"),
        (chat(VIDEO, {"type": "text", "text": " \n"}), "invalid_value", "messages.0.content", "no question"),
        (chat(VIDEO, TEXT, {"type": "image_url"}), "unsupported_type", "messages.0.content.2", "pictures are not"),
        (chat(TEXT, {"type": "x"}), "unsupported_type", "messages.0.content.1", "'x'"),
        (chat(TEXT, {"type": "video_url", "video_url": {}}), "invalid_value", "messages.0.content.1.video_url.url", ""),
        (chat({"type": "text", "text": 3}, VIDEO), "invalid_value", "messages.0.content.0.text", "string"),
        (chat({"type": "text", "text": "x" * 20_000}, VIDEO), "invalid_value", "messages", "16384"),
        (chat(TEXT, {**SOUND, "input_audio": {"data": DATA, "format": "exe"}}), "invalid_value", None, "wav"),
        (chat(TEXT, stream_options={"include_usage": True}), "invalid_value", "stream_options", "needs stream"),
        (chat(TEXT, VIDEO, tools=[]), "unsupported_parameter", "tools", "not offered"),
        (chat(TEXT, VIDEO, n=0), "invalid_value", "n", "greater than or equal to 1"),
        (chat(TEXT, VIDEO, n=9), "invalid_value", "n", "allowed are 8"),
        (chat(TEXT, VIDEO, n="2"), "invalid_value", "n", "integer"),
        (chat(TEXT, VIDEO, n=2, temperature=0.0), "invalid_value", "n", "greedy"),
        (chat(TEXT, VIDEO, temperature=float("nan")), "invalid_value", "temperature", ""),
        (chat(TEXT, VIDEO, top_p=0.0), "invalid_value", "top_p", ""),
        (chat(TEXT, VIDEO, max_tokens=0), "invalid_value", "max_tokens", ""),
        (chat(TEXT, max_tokens=1, max_completion_tokens=2), "invalid_value", "max_tokens", "differ"),
        (chat(TEXT, VIDEO, seed=2**70), "invalid_value", "seed", ""),
        (chat(TEXT, stop=["a", "b", "c", "d", "e"]), "invalid_value", None, ""),
        (chat(TEXT, stop=[""]), "invalid_value", "stop", "1 to 128"),
        (chat(TEXT, top_logprobs=2), "invalid_value", "top_logprobs", "needs logprobs"),
        (chat(TEXT, logprobs=True, top_logprobs=21), "invalid_value", "top_logprobs", ""),
        (chat(TEXT, response_format={"type": "grammar"}), "unsupported_type", "response_format", "'grammar'"),
        (chat(TEXT, **schema(deep(17))), "invalid_value", "response_format.json_schema.schema", "nested"),
        (chat(TEXT, **schema({"maxItems": 10_000})), "invalid_value", None, "further than"),
        (chat(TEXT, **schema({"enum": ["x" * 17_000]})), "invalid_value", None, "longer than"),
        ({**chat(TEXT, VIDEO), "messages": []}, "invalid_value", "messages", ""),
        ({"model": "base", "messages": [{"role": "assistant", "content": "x"}]}, "invalid_value", None, "user's"),
        ({"model": "base", "messages": [{"role": "tool", "content": [TEXT]}]}, "invalid_value", None, "user"),
        ({"model": "b", "messages": [{"role": "system", "content": [VIDEO, TEXT]}, *chat(TEXT)["messages"]]},
         "invalid_value", "messages.0.content.0.video_url.url", "only the user's"),
        ({"model": "b", "messages": [*chat(TEXT, VIDEO)["messages"], *chat(TEXT, SOUND)["messages"]]},
         "invalid_value", None, "one message"),
        ([], "invalid_value", None, "the body"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_name(body: Any, code: str, param: str | None, words: str) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (400, code)
    assert words in error.message
    if param is not None:
        assert error.param == param


def test_unknown_fields_cost_one_error_each_part() -> None:
    unknown = {f"x{i}": 1 for i in range(50_000)}
    few = {f"x{i}": 1 for i in range(100)}
    part = {**TEXT, "type": "text", **few}
    bodies = [
        (chat(TEXT, **unknown), "x0", 1),
        (chat(TEXT, **{"mm_processor_kwargs": unknown}), "mm_processor_kwargs.x0", 1),
        ({"model": "base", "messages": [{"role": "user", "content": [part] * 16, **few}] * 32},
         "messages.0.content.0.x0", 32 * 17),
        (chat(TEXT, stop=[1] * 50_000), "stop.str", 2),
    ]  # fmt: skip
    for body, param, most in bodies:
        with pytest.raises(ValidationError) as caught:
            ChatRequest.model_validate(body)
        assert caught.value.error_count() <= most
        assert refusal(body).param == param
    with pytest.raises(ValidationError) as caught:
        ChampionWanted.model_validate(unknown)
    assert caught.value.error_count() == 1


def test_an_error_never_repeats_what_was_sent() -> None:
    assert "SECRET" not in json.dumps(refusal(chat(TEXT, {**VIDEO, "video_url": {"url": ["SECRET"]}})).body())
    assert len(json.dumps(refusal(chat(TEXT, {"type": "x" * 100_000})).body())) < 600
    assert len(json.dumps(refusal(chat(TEXT, **{"x" * 100_000: 1})).body())) < 600
