"""Media that the server fetches: over real TLS from hosts on its list, through redirects that it may follow."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from clipmaker import write_clip
from mediahosts import IMPOSTOR, INSIDE, MEDIA, STORE, MediaHosts, internet, media_hosts

from actors.serving.errors import ApiError
from actors.serving.media import Decoder, Media, Source
from avere_ray.config import DecodeConfig, ServeConfig
from avere_ray.media import decode_clip
from avere_ray.records import Clip, DecodedClip

SPEC = DecodeConfig(frames=4, height=28, width=28, max_memory_mb=1024)
ALLOWED = (MEDIA, STORE, IMPOSTOR, INSIDE)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaHosts]:
    folder = tmp_path_factory.mktemp("hosts")
    with media_hosts(folder) as found:
        clip = write_clip(folder / "clip.mp4").read_bytes()
        found.files = {f"{host}/clip.mp4": clip for host in (*ALLOWED, "other.example")}
        found.files[f"{MEDIA}/large.mp4"] = bytes(3 * 2**20)
        found.files[f"{MEDIA}/broken.mp4"] = clip[:3000]
        found.leads = {
            f"{MEDIA}/moved.mp4": f"https://{STORE}/again.mp4",
            f"{STORE}/again.mp4": "/clip.mp4",
            f"{MEDIA}/to-inside.mp4": f"https://{INSIDE}/clip.mp4",
            f"{MEDIA}/to-other.mp4": "https://other.example/clip.mp4",
            f"{MEDIA}/to-plain.mp4": f"http://{STORE}/clip.mp4",
            f"{MEDIA}/to-port.mp4": f"https://{STORE}:8443/clip.mp4",
            f"{MEDIA}/to-file.mp4": "file:///etc/passwd",
            f"{MEDIA}/round.mp4": f"https://{MEDIA}/round.mp4",
        }
        yield found


@pytest.fixture(scope="module")
def decoder(hosts: MediaHosts) -> Iterator[Decoder]:
    """Its child process, which fetches and decodes, sees the hosts; this one does not."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hosts.variables.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(internet()))
        made = Decoder(SPEC, ServeConfig(decoders=1, media_hosts=ALLOWED, max_body_mb=2, fetch_timeout_s=15))
        yield made
        made.close()


def fetched(decoder: Decoder, url: str) -> DecodedClip:
    media = Media(video=Source(url=url, param="here"), own_sound=True, message=0)
    clip = asyncio.run(decoder.decode(media))
    assert clip is not None
    return clip


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("clip.mp4", [f"{MEDIA}/clip.mp4"]),
        ("moved.mp4", [f"{MEDIA}/moved.mp4", f"{STORE}/again.mp4", f"{STORE}/clip.mp4"]),
    ],
)
def test_a_clip_is_fetched_and_redirects_are_followed(
    decoder: Decoder, hosts: MediaHosts, name: str, asked: list[str], tmp_path: Path
) -> None:
    hosts.asked.clear()
    found = fetched(decoder, f"https://{MEDIA}/{name}")
    assert hosts.asked == asked
    (path := tmp_path / "clip.mp4").write_bytes(hosts.files[f"{MEDIA}/clip.mp4"])
    expected = decode_clip(Clip(clip_id="c", uri=str(path)), path, SPEC)
    assert (found.frames == expected.frames).all()
    assert (found.waveform == expected.waveform).all()


@pytest.mark.parametrize(
    ("place", "code", "asked"),
    [
        (f"{INSIDE}/clip.mp4", "remote_refused", []),  # an allowed name that stands for a private address
        (f"{IMPOSTOR}/clip.mp4", "remote_unreachable", []),  # an allowed name that has no certificate
        (f"{MEDIA}/to-inside.mp4", "remote_refused", [f"{MEDIA}/to-inside.mp4"]),
        (f"{MEDIA}/to-other.mp4", "remote_refused", [f"{MEDIA}/to-other.mp4"]),
        (f"{MEDIA}/to-plain.mp4", "remote_refused", [f"{MEDIA}/to-plain.mp4"]),
        (f"{MEDIA}/to-port.mp4", "remote_refused", [f"{MEDIA}/to-port.mp4"]),
        (f"{MEDIA}/to-file.mp4", "remote_refused", [f"{MEDIA}/to-file.mp4"]),
        (f"{MEDIA}/none.mp4", "file_missing", [f"{MEDIA}/none.mp4"]),
        (f"{MEDIA}/large.mp4", "too_large", [f"{MEDIA}/large.mp4"]),
        (f"{MEDIA}/broken.mp4", "corrupt", [f"{MEDIA}/broken.mp4"]),
    ],
)
def test_what_is_not_fetched(decoder: Decoder, hosts: MediaHosts, place: str, code: str, asked: list[str]) -> None:
    hosts.asked.clear()
    with pytest.raises(ApiError) as caught:
        fetched(decoder, f"https://{place}")
    assert (caught.value.status, caught.value.code, caught.value.param) == (422, code, "here")
    assert hosts.asked == asked
    assert not any(word in caught.value.message for word in ("10.1.2.3", "127.0.0.1", "/tmp", "avere-ray-"))


def test_redirects_in_a_circle_end(decoder: Decoder, hosts: MediaHosts) -> None:
    hosts.asked.clear()
    with pytest.raises(ApiError) as caught:
        fetched(decoder, f"https://{MEDIA}/round.mp4")
    assert caught.value.status == 422
    assert 1 < len(hosts.asked) < 20
