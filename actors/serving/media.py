"""What requests bring: taken out of data: URLs or fetched from allowed hosts, decoded in processes that can be killed.

The decoder is the one that made the training data, with the same sampling spec and limits. What was decoded stays for a
while, by content, since a page asks the base, the adapter and for the evidence about one and the same clip.
"""

import asyncio
import base64
import binascii
import collections
import contextlib
import functools
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.serving.errors import ApiError, bad
from avere_ray.config import DecodeConfig, RemoteConfig, ServeConfig
from avere_ray.errors import ClipDecodeError, InputError, StageError
from avere_ray.isolation import TOKENS, ChildCrashed, ChildProcess, ChildTimedOut
from avere_ray.records import Clip, DecodedClip
from avere_ray.remote import check_address, local_copy, shown

_PRELOAD = ("avere_ray.media", "actors.serving.media")
_IDLE_S = 600.0
_UNREACHABLE = ("remote_unreachable", "timeout")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where one file of a request is: at a URL (data: or https:), or inside it."""

    url: str = ""
    base64: str = ""
    data: bytes = b""
    """The file itself, where it was uploaded as it is."""
    param: str
    """Its place in the request, for error messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """The files of a request."""

    video: Source | None = None
    sound: Source | None = None
    own_sound: bool = False
    """Whether the video's own sound is heard."""
    message: int | None = None
    """Which turn of the conversation shows them."""
    remedy: str = "Send a clip with sound."
    """What a client is told to do about a video that has none."""

    @property
    def seen(self) -> bool:
        """Whether there are pictures."""
        return self.video is not None

    @property
    def heard(self) -> bool:
        """Whether there is sound."""
        return self.own_sound or self.sound is not None

    def parts(self) -> list[dict[str, str]]:
        """As chat templates take them."""
        return [{"type": kind} for kind, there in (("video", self.seen), ("audio", self.heard)) if there]


class Decoder:
    """Decodes the media of many requests, some at a time, for one event loop.

    Who goes away while waiting for a child leaves nothing behind; who goes away while one decodes takes it along.
    """

    def __init__(self, spec: DecodeConfig, serve: ServeConfig) -> None:
        limit = serve.max_body_mb * 2**20
        self.spec = spec.model_copy(update={"max_bytes": min(spec.max_bytes, limit)})
        self.remote = RemoteConfig(
            http_hosts=serve.media_hosts, timeout_s=serve.fetch_timeout_s, attempts=1, public_only=True
        )
        self._threads = ThreadPoolExecutor(serve.decoders, "decode")
        self._idle: asyncio.LifoQueue[ChildProcess] = asyncio.LifoQueue()
        self._busy: set[ChildProcess] = set()
        for _ in range(serve.decoders):
            self._idle.put_nowait(self._child())
        self._kept = _Kept(serve.decoded_mb * 2**20)

    async def decode(self, media: Media) -> DecodedClip | None:
        """The clip of a request; None where it brings no media. What it does not show or tell has length 0.

        Raises:
            ApiError: a file cannot be had or decoded.
        """
        if not media.seen and not media.heard:
            return None
        for source in (media.video, media.sound):
            if source is not None and source.url:
                self._check_url(source)
        child = await self._idle.get()
        self._busy.add(child)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._decoded, media, child)
        work.add_done_callback(functools.partial(self._free, child))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            child.abandon()
            raise

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in self._busy:
            child.abandon()
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _child(self) -> ChildProcess:
        return ChildProcess(preload=_PRELOAD, idle_s=_IDLE_S, memory_mb=self.spec.max_memory_mb, without=TOKENS)

    def _free(self, child: ChildProcess, work: "asyncio.Future[DecodedClip]") -> None:
        """Lets the next request have a child whose thread has ended, or another in its place."""
        self._busy.discard(child)
        if not work.cancelled():
            work.exception()  # whoever it was raised for may be gone
        if child.abandoned:
            child.close()
            child = self._child()
        self._idle.put_nowait(child)

    def _check_url(self, source: Source) -> None:
        scheme = source.url[:8].partition(":")[0].lower()
        if scheme == "data":
            return
        if scheme != "https":
            got = repr(scheme[:16]) if ":" in source.url[:8] else "no scheme"
            what = f"media must be data: URLs with base64, or https:// (got {got})"
            raise bad(what, source.param, "unsupported_url")
        if len(source.url) > 4096:
            raise bad("the URL is longer than 4096 characters", source.param, "unsupported_url")
        try:
            check_address(source.url, self.remote, "media")
        except (InputError, ValueError) as error:
            raise bad(
                "this server fetches nothing from that host; send the file as a data: URL",
                source.param,
                "host_not_allowed",
            ) from error

    def _decoded(self, media: Media, child: ChildProcess) -> DecodedClip:
        files = [(source, _content(source)) for source in (media.video, media.sound) if source is not None]
        whole = all(content is not None for _, content in files)
        key = _key(media, [content for _, content in files if content is not None]) if whole else ""
        if key and (kept := self._kept.get(key)) is not None:
            return kept
        try:
            with contextlib.ExitStack() as held:
                paths = [held.enter_context(_as_file(source, content)) for source, content in files]
                clip = self._in_child(child, media, dict(zip((s.param for s, _ in files), paths, strict=True)))
        except OSError as error:
            raise ApiError(503, "there is no room for the file; try again later", code="overloaded") from error
        if key:
            self._kept.put(key, clip)
        return clip

    def _in_child(self, child: ChildProcess, media: Media, places: dict[str, str]) -> DecodedClip:
        """Decodes in a child process; `places` by param: paths, or addresses to fetch from."""
        video, sound = (places[s.param] if s is not None else None for s in (media.video, media.sound))
        fetches = sum(place.startswith("https:") for place in places.values())
        try:
            limit = self.spec.timeout_s + fetches * self.remote.timeout_s
            return child.call(limit, decode_files, video, sound, media.own_sound, self.spec, self.remote)
        except ClipDecodeError as error:
            raise _refusal(error, media, places) from error
        except ChildTimedOut as error:
            raise ApiError(422, "decoding takes too long", code="timeout", param=_first(media)) from error
        except ChildCrashed as error:
            what = "the decoder crashed on the file; it is damaged or hostile"
            raise ApiError(422, what, code="decoder_crashed", param=_first(media)) from error
        except StageError as error:
            raise ApiError(503, "the decoder cannot be started; try again later", code="overloaded") from error


def decode_files(
    video: str | None, sound: str | None, own_sound: bool, spec: DecodeConfig, remote: RemoteConfig
) -> DecodedClip:
    """What the files of a request hold; runs in the child process. Addresses are fetched first.

    Raises:
        ClipDecodeError: one of them cannot be had or decoded.
    """
    from avere_ray.media import decode_clip, decode_pictures, decode_sound

    with contextlib.ExitStack() as held:
        here: list[Path | None] = []
        for uri in (video, sound):
            there = None if uri is None else held.enter_context(local_copy(uri, remote, spec.max_bytes)).path
            here.append(there)
        try:
            return _decode(here[0], here[1], own_sound, spec, (decode_clip, decode_pictures, decode_sound))
        except ClipDecodeError as error:
            message = error.message
            for uri, path in zip((video, sound), here, strict=True):
                message = message.replace(str(path), shown(uri)) if uri and path else message
            raise ClipDecodeError(error.reason, message) from error


def _decode(
    video: Path | None, sound: Path | None, own_sound: bool, spec: DecodeConfig, ways: tuple[Callable[..., Any], ...]
) -> DecodedClip:
    clip, pictures, heard = ways
    if video is not None and (own_sound or sound is not None):
        return clip(Clip(clip_id="request", uri=str(video)), video, spec, sound)
    if video is not None:
        return pictures("request", video, spec)
    return heard("request", sound, spec)


class _Kept:
    """The clips that were used last, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._clips: collections.OrderedDict[str, DecodedClip] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> DecodedClip | None:
        with self._lock:
            if key in self._clips:
                self._clips.move_to_end(key)
            return self._clips.get(key)

    def put(self, key: str, clip: DecodedClip) -> None:
        with self._lock:
            if key in self._clips:
                return
            self._clips[key] = clip
            self._bytes += _size(clip)
            while self._bytes > self.most:
                _, oldest = self._clips.popitem(last=False)
                self._bytes -= _size(oldest)


def _size(clip: DecodedClip) -> int:
    return clip.frames.nbytes + clip.waveform.nbytes


def _key(media: Media, contents: list[bytes]) -> str:
    shape = f"{media.seen} {media.sound is not None} {media.own_sound} "
    return shape + " ".join(hashlib.sha256(content).hexdigest() for content in contents)


def _content(source: Source) -> bytes | None:
    """The bytes inside a request; None where they are to be fetched.

    Raises:
        ApiError: they are not base64, or none.
    """
    if source.data:
        return source.data
    text = source.base64
    if source.url[:5].lower() == "data:":
        head, comma, text = source.url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise bad("a data: URL must hold base64: 'data:video/mp4;base64,...'", source.param, "unsupported_url")
    elif source.url:
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad(f"the file is not valid base64: {error}", source.param, "invalid_base64") from error
    if not content:
        raise bad("the file has 0 bytes", source.param, "empty_file")
    return content


@contextlib.contextmanager
def _as_file(source: Source, content: bytes | None) -> Iterator[str]:
    """A path with the content, or the address to fetch it from."""
    if content is None:
        yield source.url
        return
    with tempfile.NamedTemporaryFile(prefix="clip-") as file:
        file.write(content)
        file.flush()
        yield file.name


def _refusal(error: ClipDecodeError, media: Media, places: dict[str, str]) -> ApiError:
    """The decoder's words about the client's file, without the names of ours."""
    message, param = error.message, _first(media)
    for source in (media.video, media.sound):
        if source is not None and places[source.param] in message:
            param = source.param
            message = message.replace(places[source.param], "the file")
    if error.reason == "remote_refused":
        return ApiError(422, "the file may not be fetched from there", code=error.reason, param=param)
    if error.reason in _UNREACHABLE and places[param].startswith("https:"):
        return ApiError(422, "the file cannot be fetched: its host does not answer", code=error.reason, param=param)
    if error.reason == "no_audio_stream" and media.own_sound:
        message += f" {media.remedy}"
    return ApiError(422, message, code=error.reason, param=param)


def _first(media: Media) -> str:
    source = media.video or media.sound
    assert source is not None
    return source.param
