"""The chat API in plain types: what a client sends, how it is read, and what is refused; no Ray, no engine.

The shape is OpenAI's (chat completions), with vLLM's parts `video_url` and `audio_url` and its `mm_processor_kwargs`.
What this server does not do is refused by name, never ignored: a client must not believe that it had an effect.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from actors.serving.errors import ApiError, bad
from actors.serving.media import Media, Source
from actors.serving.schemas import checked_schema
from avere_ray.config import ServeConfig
from avere_ray.engine import Wanted
from avere_ray.stages import digest

_SILENT = "To ask about the pictures alone, set mm_processor_kwargs.use_audio_in_video to false."


class Fields(BaseModel):
    """Part of a request with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, given: Any) -> Any:
        """Leaves one unknown field, to be refused by name; an error for each would take far more than was sent."""
        names = {field.alias or name for name, field in cls.model_fields.items()}
        if not isinstance(given, dict) or given.keys() <= names:
            return given
        unknown = next(name for name in given if name not in names)
        return {name: value for name, value in given.items() if name in names or name == unknown}


class TextPart(Fields):
    """Words."""

    type: Literal["text"]
    text: str


class Url(Fields):
    """A data: URL, or https:// on a host that the server allows."""

    url: str


class VideoPart(Fields):
    """The clip."""

    type: Literal["video_url"]
    video_url: Url


class AudioUrlPart(Fields):
    """A sound file that belongs to the clip, or stands alone."""

    type: Literal["audio_url"]
    audio_url: Url


class InputAudio(Fields):
    """A sound file inside the request."""

    data: str
    """base64."""
    format: Literal["wav", "mp3", "flac", "ogg", "m4a", "aac"]


class InputAudioPart(Fields):
    """A sound file that belongs to the clip, or stands alone."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Part = Annotated[TextPart | VideoPart | AudioUrlPart | InputAudioPart, Field(discriminator="type")]


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(Fields):
    """One turn: words, and in a user's turn media. An answer may be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    """"developer" is another word for "system"."""
    content: Annotated[
        Annotated[list[Part], Field(min_length=1, max_length=16)],
        BeforeValidator(_as_parts, json_schema_input_type=str | Annotated[list[Part], Field(max_length=16)]),
    ]
    name: Annotated[str, Field(max_length=64)] | None = None
    """Who speaks; makes no difference."""
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


class PlainText(Fields):
    """Answers are words."""

    type: Literal["text"]


class JsonObject(Fields):
    """Answers are some JSON object."""

    type: Literal["json_object"]


class Schema(Fields):
    """A JSON schema with a name."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Answers always follow the schema."""
    description: Annotated[str, Field(max_length=1024)] | None = None


class JsonSchema(Fields):
    """Answers are JSON of this schema."""

    type: Literal["json_schema"]
    json_schema: Schema


class StreamOptions(Fields):
    """What a stream tells."""

    include_usage: bool = False
    """A last chunk counts the tokens."""


class MediaOptions(Fields):
    """vLLM's settings of how media are processed."""

    use_audio_in_video: bool | None = None
    """Whether the video's own sound is heard; unset: yes, unless another sound file comes with it."""


def _or(default: float, kind: Any) -> BeforeValidator:
    """A setting that is null is as if it were not there."""
    return BeforeValidator(lambda given: default if given is None else given, json_schema_input_type=kind | None)


_Count = Annotated[int, Field(ge=1, le=128)]
_Temperature = Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]


class ChatRequest(Fields):
    """Body of POST /v1/chat/completions."""

    model: str
    """One of GET /v1/models."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=32)]
    """The conversation; at most one clip, sound file or both, in one of the user's turns."""
    n: Annotated[_Count, _or(1, _Count)] = 1
    """Answers wanted."""
    temperature: Annotated[_Temperature, _or(1.0, _Temperature)] = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[_Share, _or(1.0, _Share)] = 1.0
    """Share of the likeliest tokens that are sampled from."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, tokens; None takes the run's rollout.max_tokens, or what there is room for."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same, by its newer name."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """The same request with the same seed gets the same answer; None draws one."""
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    """The answer ends before the first of these."""
    logprobs: bool | None = None
    """Tell the log-prob (nats) of every token."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Alternatives told with each token."""
    response_format: Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")] | None = None
    """Bind the answer to JSON."""
    stream: bool | None = None
    """Send the answer piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    mm_processor_kwargs: MediaOptions | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request as it was understood."""

    model: str
    conversation: list[dict[str, Any]]
    """Turns as chat templates take them, media as parts without content."""
    media: Media
    wanted: Wanted
    words: str
    """All words of the conversation."""


def understood(request: ChatRequest, limits: ServeConfig, default_tokens: int) -> Asked:
    """What a request asks for.

    Raises:
        ApiError: it asks for something that is not offered or contradicts itself.
    """
    media = _media(request)
    words = "\n".join(p.text for m in request.messages for p in m.content if isinstance(p, TextPart))
    if len(words) > limits.max_text:
        raise bad(f"the words have {len(words)} characters, allowed are {limits.max_text}", "messages")
    return Asked(
        model=request.model,
        conversation=_conversation(request, media),
        media=media,
        wanted=_wanted(request, limits, default_tokens),
        words=words,
    )


def _conversation(request: ChatRequest, media: Media) -> list[dict[str, Any]]:
    last = request.messages[-1]
    if last.role != "user":
        raise bad("the last message must be the user's", f"messages.{len(request.messages) - 1}.role")
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(request.messages):
        words = "\n".join(p.text for p in message.content if isinstance(p, TextPart)).strip()
        if not words:
            raise bad("there is no question; add a part of type 'text'", f"messages.{index}.content")
        shown = media.parts() if index == media.message else []  # as in training: picture, sound, words
        role = "system" if message.role == "developer" else message.role
        turns.append({"role": role, "content": [*shown, {"type": "text", "text": words}]})
    return turns


def _media(request: ChatRequest) -> Media:
    """The one video and the one sound file of a request, where it has them."""
    videos, sounds = list[tuple[int, Source]](), list[tuple[int, Source]]()
    for index, part, at in _parts(request):
        if isinstance(part, VideoPart):
            videos.append((index, Source(url=part.video_url.url, param=f"{at}.video_url.url")))
        elif isinstance(part, AudioUrlPart):
            sounds.append((index, Source(url=part.audio_url.url, param=f"{at}.audio_url.url")))
        elif isinstance(part, InputAudioPart):
            sounds.append((index, Source(base64=part.input_audio.data, param=f"{at}.input_audio.data")))
    for kind, found, code in (("video", videos, "several_videos"), ("sound", sounds, "several_sounds")):
        if len(found) > 1:
            raise bad(f"there are {len(found)} {kind} files; send one at most", found[1][1].param, code)
    if videos and sounds and videos[0][0] != sounds[0][0]:
        raise bad("video and sound must stand in one message", sounds[0][1].param)
    for index, source in (*videos, *sounds):
        if request.messages[index].role != "user":
            raise bad("only the user's messages may show media", source.param)
    own = _own_sound(request, bool(videos), bool(sounds))
    message = next((index for index, _ in (*videos, *sounds)), None)
    video, sound = (found[0][1] if found else None for found in (videos, sounds))
    return Media(video=video, sound=sound, own_sound=own, message=message, remedy=_SILENT)


def _own_sound(request: ChatRequest, video: bool, sound: bool) -> bool:
    chosen = request.mm_processor_kwargs.use_audio_in_video if request.mm_processor_kwargs else None
    param = "mm_processor_kwargs.use_audio_in_video"
    if chosen and not video:
        raise bad(f"{param} is set, but there is no video", param)
    if chosen and sound:
        raise bad(f"{param} is set, and there is a sound file besides; send one of them", param)
    return video and (not sound if chosen is None else chosen)


def _parts(request: ChatRequest) -> Iterator[tuple[int, Any, str]]:
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.content):
            yield index, part, f"messages.{index}.content.{place}"


def _wanted(request: ChatRequest, limits: ServeConfig, default_tokens: int) -> Wanted:
    if request.n > limits.max_n:
        raise bad(f"n is {request.n}, allowed are {limits.max_n}", "n")
    if request.n > 1 and request.temperature == 0.0:
        raise bad("n above 1 needs a temperature above 0: greedy answers are all the same", "n")
    tokens = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(tokens) > 1:
        raise bad("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
    if request.stream_options is not None and not request.stream:
        raise bad("stream_options needs stream", "stream_options")
    form = request.response_format
    return Wanted(
        max_tokens=next(iter(tokens), None),
        default_tokens=default_tokens,
        n=request.n,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=secrets.randbits(31) if request.seed is None else int(digest("serve", request.seed)[:8], 16) >> 1,
        stop=_stop(request.stop),
        logprobs=_logprobs(request),
        schema=checked_schema(form.json_schema.schema_) if isinstance(form, JsonSchema) else None,
        json_object=isinstance(form, JsonObject),
        stream=bool(request.stream),
    )


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    words = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if any(not 1 <= len(word) <= 128 for word in words):
        raise bad("stop words must have 1 to 128 characters each", "stop")
    return words


def _logprobs(request: ChatRequest) -> int | None:
    if request.top_logprobs and not request.logprobs:
        raise bad("top_logprobs needs logprobs", "top_logprobs")
    return (request.top_logprobs or 0) if request.logprobs else None


def explain(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's validation errors, in words; values are not repeated, since they may be whole clips."""
    first = errors[0]
    path = [str(part) for part in first["loc"][first["loc"][:1] == ("body",) :]]
    if path[2:3] == ["content"]:
        del path[4:5]  # which kind of part pydantic took it for
    param = ".".join(path) or None
    if first["type"] == "json_invalid":
        return bad(f"the body is not JSON: {first.get('ctx', {}).get('error', '')}", None, "invalid_json")
    if first["type"] == "extra_forbidden":
        return bad(
            f"{_short(param)} is not offered by this server; leave it out", _short(param), "unsupported_parameter"
        )
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])[:40]
        allowed = first["ctx"]["expected_tags"]
        what = "pictures are not accepted, only video and sound" if tag == "image_url" else "it is not accepted"
        return bad(f"{param} is of type {tag!r}: {what}; allowed are {allowed}", param, "unsupported_type")
    return bad(f"{_short(param) or 'the body'}: {first['msg'][:300]}", _short(param), "invalid_value")


def _short(param: str | None) -> str | None:
    return param if param is None or len(param) <= 120 else param[:117] + "..."
