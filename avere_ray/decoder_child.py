"""Decoding in a child process that is killed when it hangs or crashes, so that a hostile file costs one clip."""

import functools
from pathlib import Path

from avere_ray.clip_files import check_addresses, decode_media, located
from avere_ray.config import DecodeConfig, RemoteConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.isolation import TOKENS, ChildCrashed, ChildProcess, ChildTimedOut
from avere_ray.records import Clip, DecodedClip
from avere_ray.remote import is_remote, shown
from avere_ray.remote_notes import RemoteNotes


def decode_isolated(
    clip: Clip,
    spec: DecodeConfig,
    known: frozenset[str] = frozenset(),
    remote: RemoteConfig = RemoteConfig(),  # noqa: B008 - frozen
    notes: RemoteNotes | None = None,
) -> tuple[DecodedClip | None, str]:
    """`clip_files.decode_media` of a `clip_files.located` clip in a child process that is killed when it hangs.

    Raises:
        ClipDecodeError: as `decode_media`; besides "timeout" when the child had to be killed, and "decoder_crashed"
            when it died.
    """
    path, limit = shown(clip.uri), longest_s(clip.uri, clip.audio_uri, spec, remote)
    try:
        return _decoder_child(spec.max_memory_mb).call(limit, decode_media, clip, spec, known, remote, notes)
    except ChildTimedOut as error:
        raise ClipDecodeError(
            "timeout",
            f"{path}: decoding took longer than {limit:g} s and was killed. Cut "
            "or re-encode the file, or raise data.decode.timeout_s.",
        ) from error
    except ChildCrashed as error:
        raise ClipDecodeError(
            "decoder_crashed",
            f"{path}: the decoder crashed on it ({error}). The file is damaged or hostile; re-encode or remove it.",
        ) from error


def decode_one(clip: Clip, root: Path, spec: DecodeConfig, remote: RemoteConfig) -> DecodedClip:
    """One clip, decoded in a child process and kept nowhere.

    Raises:
        InputError: its media are at an address that may not be fetched from.
        ClipDecodeError: see `decode_isolated`.
    """
    check_addresses([clip], remote)
    decoded, _ = decode_isolated(located(clip, root), spec, remote=remote)
    assert decoded is not None  # nothing is known beforehand
    return decoded


def longest_s(uri: str, audio_uri: str, spec: DecodeConfig, remote: RemoteConfig) -> float:
    """Seconds that one clip may take to decode, with what its files need to arrive."""
    return spec.timeout_s + remote.timeout_s * sum(map(is_remote, (uri, audio_uri)))


@functools.cache
def _decoder_child(memory_mb: int) -> ChildProcess:
    """One child per worker process; it leaves when idle."""
    return ChildProcess(preload=("avere_ray.media", "avere_ray.clip_files"), memory_mb=memory_mb, without=TOKENS)
