"""Media of requests: decoded as for training in a process of its own, kept by content, refused in plain words."""

import asyncio
import base64
import errno
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clipmaker import Recipe, write_clip

from actors.serving import media as module
from actors.serving.errors import ApiError
from actors.serving.media import Decoder, Media, Source
from avere_ray.config import DecodeConfig, ServeConfig
from avere_ray.media import decode_clip
from avere_ray.records import Clip, DecodedClip

SPEC = DecodeConfig(frames=4, height=28, width=28, max_memory_mb=1024)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(SPEC, ServeConfig(decoders=1, media_hosts=("media.example", "localhost:8443")))
    yield made
    made.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def source(path: Path) -> Source:
    return Source(url="data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode(), param="here")


def whole(video: Source) -> Media:
    return Media(video=video, own_sound=True, message=0)


def decoded(decoder: Decoder, media: Media) -> DecodedClip | None:
    return asyncio.run(decoder.decode(media))


def refusal(decoder: Decoder, media: Media) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decoded(decoder, media)
    return caught.value


def test_a_clip_decodes_as_for_training_and_is_kept(decoder: Decoder, clip: Path) -> None:
    found = decoded(decoder, whole(source(clip)))
    expected = decode_clip(Clip(clip_id="c", uri=str(clip)), clip, SPEC)
    assert found is not None
    assert (found.frames == expected.frames).all()
    assert (found.waveform == expected.waveform).all()
    assert found.spec == expected.spec
    assert decoded(decoder, whole(source(clip))) is found
    alone = decoded(decoder, Media(video=source(clip), message=0))
    assert alone is not None
    assert alone.waveform.shape == (0,)
    assert decoded(decoder, Media()) is None


def test_sound_may_come_from_another_file_or_alone(decoder: Decoder, clip: Path, tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    sound = Source(base64=base64.b64encode(clip.read_bytes()).decode(), param="there")
    both = decoded(decoder, Media(video=source(silent), sound=sound, message=0))
    heard = decoded(decoder, Media(sound=sound, message=0))
    assert both is not None and heard is not None
    assert both.waveform.any() and heard.waveform.any()
    assert len(both.frames) == 4
    assert len(heard.frames) == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://media.example/a.mp4", "unsupported_url"),
        ("file:///etc/passwd", "unsupported_url"),
        ("/etc/passwd", "unsupported_url"),
        ("s3://bucket/a.mp4", "unsupported_url"),
        ("", "empty_file"),
        ("https://other.example/a.mp4", "host_not_allowed"),
        ("https://media.example:8443/a.mp4", "host_not_allowed"),
        ("https://user:word@media.example/a.mp4", "host_not_allowed"),
        ("https://media.example@other.example/a.mp4", "host_not_allowed"),
        ("https://[::1", "host_not_allowed"),
        ("https://media.example/" + "a" * 5000, "unsupported_url"),
        ("data:video/mp4,AAAA", "unsupported_url"),
        ("data:video/mp4;base64,!!!!", "invalid_base64"),
        ("data:video/mp4;base64,äää", "invalid_base64"),
        ("data:video/mp4;base64,", "empty_file"),
    ],
)
def test_urls_that_are_not_asked(decoder: Decoder, url: str, code: str) -> None:
    error = refusal(decoder, whole(Source(url=url, param="messages.0.content.1.video_url.url")))
    assert (error.status, error.code, error.param) == (400, code, "messages.0.content.1.video_url.url")
    assert len(error.message) < 300


def test_an_allowed_host_that_is_not_public(decoder: Decoder) -> None:
    error = refusal(decoder, whole(Source(url="https://localhost:8443/a.mp4", param="p")))
    assert (error.status, error.code) == (422, "remote_refused")
    assert "127.0.0.1" not in error.message


def test_broken_files_are_named_as_the_clients_own(decoder: Decoder, clip: Path, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:3000])
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    error = refusal(decoder, whole(source(broken)))
    assert (error.status, error.code, error.param) == (422, "corrupt", "here")
    assert error.message.startswith("the file: ")
    without = refusal(decoder, whole(source(silent)))
    assert (without.status, without.code) == (422, "no_audio_stream")
    assert without.message.endswith(" Send a clip with sound.")
    assert decoded(decoder, whole(source(clip))) is not None


def hangs(*_: object) -> None:
    """Stands for `decode_files` in the child."""
    Path(os.environ["TEST_BEGUN"]).touch()
    time.sleep(600)


def media_in_memory() -> int:
    gc.collect()
    return sum(isinstance(found, Media) for found in gc.get_objects())


def test_who_goes_away_leaves_nothing_behind(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, decodes = tmp_path / "begun", module.decode_files
    monkeypatch.setenv("TEST_BEGUN", str(begun))
    monkeypatch.setattr(module, "decode_files", hangs)

    async def leave(*tasks: "asyncio.Task[Any]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    async def crowd(decoder: Decoder) -> None:
        def asking() -> "asyncio.Task[Any]":
            return asyncio.create_task(decoder.decode(whole(source(clip))))

        before, slow = media_in_memory(), asking()
        while not begun.exists():  # the test's time limit bounds this
            await asyncio.sleep(0.01)
        waiting = [asking() for _ in range(50)]
        await asyncio.sleep(0.01)
        await leave(*waiting)
        waiting.clear()
        assert media_in_memory() == before + 1
        [child] = decoder._busy
        pid = child.pid
        await leave(slow)
        del slow
        monkeypatch.setattr(module, "decode_files", decodes)
        assert await decoder.decode(whole(source(clip))) is not None
        assert not Path(f"/proc/{pid}").exists()
        assert media_in_memory() == before

    made = Decoder(SPEC, ServeConfig(decoders=1))
    asyncio.run(crowd(made))
    made.close()


@pytest.mark.parametrize("name", ["tempfile.NamedTemporaryFile", "subprocess.Popen"])
def test_a_machine_without_room_is_to_be_asked_again(clip: Path, name: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made = Decoder(SPEC, ServeConfig(decoders=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, full)
        error = refusal(made, whole(source(clip)))
    assert (error.status, error.code) == (503, "overloaded")
    assert error.retry_after_s is not None and error.retry_after_s >= 1
    assert decoded(made, whole(source(clip))) is not None
    made.close()


def test_what_is_kept_stays_within_its_bytes(clip: Path) -> None:
    [small] = [decode_clip(Clip(clip_id="c", uri=str(clip)), clip, SPEC)]
    kept = module._Kept(2 * module._size(small))
    for key in "abc":
        kept.put(key, small)
        kept.get("a")
    assert [kept.get(key) is not None for key in "abc"] == [True, False, True]
