"""Remote media from real servers on the loopback: HTTP, and the HTTP that S3 and Google Cloud Storage speak."""

import dataclasses
import errno
import functools
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clipmaker import Recipe, write_clip
from fileserver import GS, Files, file_server

from avere_ray import decoder_child, remote
from avere_ray.av_store import AvStore
from avere_ray.clip_files import check_addresses, decode_media, remote_notes
from avere_ray.config import DecodeConfig, RemoteConfig
from avere_ray.decoding import DecodePlan, Outcome, decode_rows, raise_storage
from avere_ray.errors import ClipDecodeError, InputError, StorageError
from avere_ray.media import decode_clip, spec_digest
from avere_ray.records import Clip
from avere_ray.remote_notes import Note, RemoteNotes
from avere_ray.stages import file_digest

SPEC = DecodeConfig(frames=2, height=56, width=56)


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        yield files


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "v.mp4", Recipe())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def allowing(*hosts: str, **settings: float) -> RemoteConfig:
    return RemoteConfig(http_hosts=hosts, **settings)  # type: ignore[arg-type]


def refused(uri: str, cfg: RemoteConfig, **spec: int) -> ClipDecodeError:
    with pytest.raises(ClipDecodeError) as caught:
        decode_media(Clip(clip_id="c", uri=uri), SPEC.model_copy(update=spec), remote=cfg)
    assert uri.partition("?")[0] in caught.value.message
    return caught.value


def run(clips: list[Clip], store: AvStore, cfg: RemoteConfig) -> list[Outcome]:
    plan = DecodePlan(clips, Path("/"), store.places(spec_digest(SPEC)), SPEC, remote_notes(store))
    return decode_rows(plan.rows, store, SPEC, functools.partial(decode_media, remote=cfg, notes=remote_notes(store)))


def test_a_file_over_http_decodes_as_the_local_one(server: Files, video: Path) -> None:
    server.files["/a b/v.mp4"] = video.read_bytes()
    clip = Clip(clip_id="c", uri=f"http://{server.host}/a%20b/v.mp4?signature=secret")
    decoded, content = decode_media(clip, SPEC, remote=allowing(server.host))
    local = decode_clip(clip, video, SPEC)
    assert content == file_digest(video)
    assert decoded is not None
    np.testing.assert_array_equal(decoded.frames, local.frames)
    np.testing.assert_array_equal(decoded.waveform, local.waveform)


def test_addresses_may_hold_any_letters(server: Files, video: Path) -> None:
    server.files["/Gefühl a%/v.mp4"] = video.read_bytes()
    clip = Clip(clip_id="c", uri=f"http://{server.host}/Gefühl a%25/v.mp4?für=x")
    assert decode_media(clip, SPEC, remote=allowing(server.host))[0] is not None


def test_an_address_that_a_library_does_not_take_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def invalid(*_: object) -> None:
        raise pa.ArrowInvalid("expected a bucket")

    monkeypatch.setattr(remote, "_file_system", invalid)
    error = refused("s3://bucket/v.mp4", RemoteConfig())
    assert (error.reason, "expected a bucket" in error.message) == ("remote_refused", True)


def test_what_is_known_is_fetched_again_only_when_it_changed(server: Files, video: Path, tmp_path: Path) -> None:
    server.files["/v.mp4"] = video.read_bytes()
    clips, store = [Clip(clip_id="c", uri=f"http://{server.host}/v.mp4")], AvStore(tmp_path / "store")
    assert [o.decoded for o in run(clips, store, allowing(server.host))] == [True]
    assert [o.decoded for o in run(clips, store, allowing(server.host))] == [False]
    assert server.asked == ["GET /v.mp4", "HEAD /v.mp4"]
    server.version, server.files["/v.mp4"] = "2", write_clip(tmp_path / "w.mp4", Recipe(width=32)).read_bytes()
    (outcome,) = run(clips, store, allowing(server.host))
    assert outcome.decoded and outcome.place and outcome.place.medium.key == file_digest(tmp_path / "w.mp4")


def test_what_has_no_version_or_another_address_is_fetched_again_but_not_decoded(
    server: Files, video: Path, tmp_path: Path
) -> None:
    server.with_version = False
    server.files["/v.mp4"] = server.files["/copy.mp4"] = video.read_bytes()
    store, cfg = AvStore(tmp_path / "store"), allowing(server.host)
    names = ["v.mp4?signature=1", "copy.mp4"]
    clips = [Clip(clip_id=name, uri=f"http://{server.host}/{name}") for name in names]
    first, second = run(clips, store, cfg)
    assert first.place == second.place
    again = [*clips, Clip(clip_id="c", uri=f"http://{server.host}/v.mp4?signature=2")]
    assert [(o.decoded, o.place) for o in run(again, store, cfg)] == [(False, first.place)] * 3
    assert len(server.asked) == 5
    part = [dataclasses.replace(clip, end_s=1.0) for clip in clips]
    assert [o.decoded for o in run(part, store, cfg)] == [True, True]
    for path in (tmp_path / "store").glob("*/*.parquet"):
        path.unlink()
    assert [o.decoded for o in run(clips, store, cfg)] == [True, True]
    assert len(list((tmp_path / "store").glob("*/*.parquet"))) == 1


def test_a_remote_video_with_a_local_sound_is_decoded_once(server: Files, video: Path, tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "a.wav", Recipe(with_video=False, audio_codec="pcm_s16le"))
    server.files["/v.mp4"] = video.read_bytes()
    clips = [Clip(clip_id="c", uri=f"http://{server.host}/v.mp4", audio_uri=str(sound))]
    store = AvStore(tmp_path / "store")
    assert [o.decoded for _ in range(2) for o in run(clips, store, allowing(server.host))] == [True, False]


def test_the_process_that_decodes_also_fetches_and_takes_notes(server: Files, video: Path, tmp_path: Path) -> None:
    server.files["/v.mp4"] = video.read_bytes()
    clip, notes = Clip(clip_id="c", uri=f"http://{server.host}/v.mp4"), RemoteNotes(tmp_path)
    try:
        decoded, content = decoder_child.decode_isolated(clip, SPEC, remote=allowing(server.host), notes=notes)
        assert decoded is not None and content == file_digest(video)
        assert notes.get(clip.uri) == Note(version=f'"1" {video.stat().st_size}', sha256=content)
        again = decoder_child.decode_isolated(clip, SPEC, frozenset([content]), allowing(server.host), notes)
        assert again == (None, content)
    finally:
        decoder_child._decoder_child(SPEC.max_memory_mb).close()


def test_a_copy_has_no_name_that_could_stay_behind(
    server: Files, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server.files["/v.mp4"], server.answers["/v.mp4"] = video.read_bytes(), ["cut"]
    with remote.local_copy(f"http://{server.host}/v.mp4", allowing(server.host), 10**9) as copy:
        assert copy.path.read_bytes() == video.read_bytes()
        assert list(tmp_path.iterdir()) == []
    assert not copy.path.exists()


@pytest.mark.parametrize("when", ["it is opened", "it is written"])
def test_a_full_disk_here_is_no_fault_of_the_server(
    server: Files, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(**_: object) -> io.FileIO:
        return Full(tmp_path / "copy", "w+")

    def full(**_: object) -> io.FileIO:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", opened if when == "it is written" else full)
    server.files["/v.mp4"] = video.read_bytes()
    (outcome,) = run([Clip(clip_id="c", uri=f"http://{server.host}/v.mp4")], AvStore(tmp_path), allowing(server.host))
    with pytest.raises(StorageError, match=r"No space left.*TMPDIR"):
        raise_storage(outcome)
    assert len(server.asked) == (when == "it is written")


def test_sound_and_picture_may_be_in_different_places(server: Files, video: Path, tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "a.wav", Recipe(with_video=False, audio_codec="pcm_s16le", tones_hz=(300.0,)))
    server.files["/a.wav"] = sound.read_bytes()
    clip = Clip(clip_id="c", uri=str(video), audio_uri=f"http://{server.host}/a.wav")
    _, content = decode_media(clip, SPEC, remote=allowing(server.host))
    assert content == f"{file_digest(video)}+{file_digest(sound)}"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://example.org/v.mp4", ["example.org", "data.remote.http_hosts", "good.org"]),
        ("https://good.org:8443/v.mp4", ["good.org:8443", "data.remote.http_hosts"]),
        ("https://good.org.evil.example/v.mp4", ["evil.example"]),
        ("https://user:word@good.org/v.mp4", ["no user or password"]),
        ("https:///v.mp4", ["host"]),
        ("ftp://good.org/v.mp4", ["ftp", "s3, gs, http, https"]),
        ("file:///v.mp4", ["file", "path"]),
        ("s3://bucket", ["s3://BUCKET/NAME"]),
        ("s3://key:word@bucket/v.mp4", ["password", "environment", "'s3://bucket/v.mp4'"]),
        ("s3://b/v?endpoint_override=127.0.0.1:80&scheme=http", ["http://127.0.0.1:80", "good.org", "'s3://b/v'"]),
        ("s3://b/v?endpoint_override=good.org:9000", ["https://good.org:9000"]),
        ("s3://b/v#f?endpoint_override=evil.example", ["evil.example"]),
        ("s3://b/v?endpoint%5Foverride=evil.example", ["evil.example"]),
        ("s3://b/v?endpoint_override=good.org&endpoint_override=evil.example", ["endpoint_override", "once"]),
        ("s3://b/v?endpoint_override=good.org%40evil.example", ["endpoint_override", "plain"]),
        ("s3://b/v?region=evil.example%23", ["region", "plain"]),
        ("s3://b%23/v", ["s3://BUCKET/NAME"]),
        ("s3://b/v?scheme=http", ["http://", "remove"]),
        ("s3://b/v?proxy_options=http%3A//evil.example", ["proxy_options", "region"]),
        ("gs://anonymous@b/v?endpoint_override=10.0.0.1", ["https://10.0.0.1", "'gs://b/v'"]),
    ],
)
def test_addresses_that_are_not_allowed_are_refused_before_anything_is_asked(uri: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_addresses([Clip(clip_id="x", uri="x.mp4", audio_uri=uri)], allowing("good.org"))
    assert [word for word in ["'x'", *words] if word not in str(caught.value)] == []
    assert "word@" not in str(caught.value)


def test_allowed_addresses_pass() -> None:
    uris = [
        "https://good.org/v",
        "http://good.org:80/v",
        "HTTPS://GOOD.org/v",
        "http://127.0.0.1:8/v",
        "s3://b/v",
        "gs://b/v",
        "gs://anonymous@b/v?retry_limit_seconds=3",
        "s3://b/v?region=eu-west-1&endpoint_override=Good.org",
        "s3://b/v?scheme=http&endpoint_override=127.0.0.1:8",
    ]
    check_addresses([Clip(clip_id=uri, uri=uri) for uri in uris], allowing("Good.org", "127.0.0.1:8"))


def test_no_endpoint_is_allowed_where_only_public_hosts_may_be_asked() -> None:
    clip = Clip(clip_id="c", uri="s3://b/v?endpoint_override=good.org")
    with pytest.raises(InputError, match=r"https://good\.org.*no such server"):
        check_addresses([clip], RemoteConfig(http_hosts=("good.org",), public_only=True))


def test_redirects_lead_to_allowed_hosts_alone(server: Files, video: Path) -> None:
    server.files["/v.mp4"] = video.read_bytes()
    other = f"http://localhost:{server.server_port}/v.mp4"
    server.answers["/moved"] = [other, other, "file:///etc/passwd"]
    clip = Clip(clip_id="c", uri=f"http://{server.host}/moved")
    assert decode_media(clip, SPEC, remote=allowing(server.host, f"localhost:{server.server_port}"))[0] is not None
    error = refused(clip.uri, allowing(server.host))
    assert (error.reason, "localhost" in error.message) == ("remote_refused", True)
    assert refused(clip.uri, allowing(server.host)).reason == "remote_refused"
    assert server.asked.count("GET /v.mp4") == 1


def test_a_host_that_is_not_public_is_refused_where_only_those_may_be_asked(server: Files, video: Path) -> None:
    server.files["/clip.mp4"] = video.read_bytes()
    cfg = allowing(server.host).model_copy(update={"public_only": True})
    error = refused(f"http://{server.host}/clip.mp4", cfg)
    assert (error.reason, server.asked) == ("remote_refused", [])


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_that_is_too_large_is_not_fetched_whole(server: Files, with_length: bool) -> None:
    server.files["/v.mp4"], server.with_length = bytes(3_000_000), with_length
    error = refused(f"http://{server.host}/v.mp4", allowing(server.host), max_bytes=1000)
    assert (error.reason, "1000" in error.message) == ("too_large", True)


@pytest.mark.parametrize(
    ("answers", "reason", "times"),
    [
        ([404], "file_missing", 1),
        ([403], "remote_refused", 1),
        ([503, "cut", 429], "remote_unreachable", 3),
        ([503, "cut"], "", 3),
    ],
)
def test_failures_that_may_pass_are_asked_again(
    server: Files, video: Path, answers: list[int | str], reason: str, times: int
) -> None:
    server.files["/v.mp4"], server.answers["/v.mp4"] = video.read_bytes(), list(answers)
    uri = f"http://{server.host}/v.mp4"
    if reason:
        assert refused(uri, allowing(server.host)).reason == reason
    else:
        assert decode_media(Clip(clip_id="c", uri=uri), SPEC, remote=allowing(server.host))[0] is not None
    assert server.asked == ["GET /v.mp4"] * times


def test_a_server_that_is_silent_or_away_costs_one_clip(server: Files, video: Path) -> None:
    server.files["/v.mp4"], server.answers["/v.mp4"] = video.read_bytes(), ["hang"]
    cfg = allowing(server.host, "127.0.0.1:9", timeout_s=0.2, attempts=1)
    assert refused(f"http://{server.host}/v.mp4", cfg).reason == "remote_unreachable"
    assert refused("http://127.0.0.1:9/v.mp4", cfg).reason == "remote_unreachable"


def test_a_file_that_trickles_in_is_not_waited_for(server: Files, video: Path) -> None:
    server.files["/v.mp4"], server.answers["/v.mp4"] = video.read_bytes(), ["trickle"]
    error = refused(f"http://{server.host}/v.mp4", allowing(server.host, timeout_s=0.2, attempts=1))
    assert (error.reason, "did not arrive within 0.2 s" in error.message) == ("timeout", True)


def test_what_arrives_and_is_no_video_is_named_by_its_address(server: Files) -> None:
    server.files["/v.mp4"] = b"<html>please log in</html>"
    assert refused(f"http://{server.host}/v.mp4?token=1", allowing(server.host)).reason == "corrupt"


def test_s3(server: Files, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.files["/bucket/a b/v.mp4"] = video.read_bytes()
    options = f"endpoint_override={server.host}&scheme=http&region=us-east-1"
    clips, store = [Clip(clip_id="c", uri=f"s3://bucket/a b/v.mp4?{options}")], AvStore(tmp_path / "store")
    check_addresses(clips, allowing(server.host))
    (first,) = run(clips, store, allowing(server.host))
    assert first.place and first.place.medium.key == file_digest(video)
    (again,) = run(clips, store, allowing(server.host))
    assert (again.decoded, again.place) == (False, first.place)
    assert sum(asked.startswith("GET /bucket/a b/v.mp4") for asked in server.asked) == 1
    error = refused(f"s3://bucket/gone.mp4?{options}", allowing(server.host))
    assert (error.reason, options in error.message) == ("file_missing", False)


def test_google_cloud_storage(server: Files, video: Path, tmp_path: Path) -> None:
    server.files[f"{GS}bucket/o/a/v.mp4"] = server.files["/bucket/a/v.mp4"] = video.read_bytes()
    uri = f"gs://anonymous@bucket/a/v.mp4?scheme=http&endpoint_override={server.host}&retry_limit_seconds=3"
    clips, store = [Clip(clip_id="c", uri=uri)], AvStore(tmp_path / "store")
    check_addresses(clips, allowing(server.host))
    (first,) = run(clips, store, allowing(server.host))
    assert first.message == ""
    assert first.place and first.place.medium.key == file_digest(video)
    (again,) = run(clips, store, allowing(server.host))
    assert (again.decoded, again.place) == (False, first.place)


def test_a_pyarrow_without_a_file_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.fs

    monkeypatch.delattr(pyarrow.fs, "GcsFileSystem")
    remote._check_installed.cache_clear()
    with pytest.raises(InputError, match=r"cannot read gs://.*pip install"):
        check_addresses([Clip(clip_id="c", uri="gs://bucket/v.mp4")], RemoteConfig())
    remote._check_installed.cache_clear()
