"""The files of a clip: where they are, whether they may be fetched, and the decoder's answer to what they hold.

Relative uris belong to the folder of the clip table; remote ones are fetched for the time of decoding.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from avere_ray.av_store import AvStore, media_key
from avere_ray.config import DecodeConfig, RemoteConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.records import Clip, DecodedClip
from avere_ray.remote import absolute_uri, check_address, is_remote, local_copy, shown, version
from avere_ray.remote_notes import RemoteNotes

REMOTE = "remote"


def located(clip: Clip, root: Path) -> Clip:
    """The clip with absolute paths of its files; relative uris are relative to `root`, remote addresses stay."""
    audio = absolute_uri(clip.audio_uri, root) if clip.audio_uri else ""
    return dataclasses.replace(clip, uri=absolute_uri(clip.uri, root), audio_uri=audio)


def check_addresses(clips: Iterable[Clip], remote: RemoteConfig) -> None:
    """Refuses clips whose media may not be fetched.

    Raises:
        InputError: names the first; see `remote.check_address`.
    """
    for clip in clips:
        for uri in filter(is_remote, (clip.uri, clip.audio_uri)):
            check_address(uri, remote, f"clip {clip.clip_id!r}")


def decode_media(
    clip: Clip,
    spec: DecodeConfig,
    known: frozenset[str] = frozenset(),
    remote: RemoteConfig = RemoteConfig(),  # noqa: B008 - frozen
    notes: RemoteNotes | None = None,
) -> tuple[DecodedClip | None, str]:
    """`media.decode_unless_known` of a `located` clip; remote files are fetched first.

    A remote file that has not changed since `notes` were taken of it is not fetched when its content is known. One that
    had to be fetched is not decoded when it turns out that the store has what it holds.

    Raises:
        ClipDecodeError: a file cannot be fetched or decoded.
        StorageError: there is no room for a temporary copy.
    """
    from avere_ray.media import content_of, decode_unless_known

    uris = [uri for uri in (clip.uri, clip.audio_uri) if uri]
    if known and notes is not None and (content := _noted(uris, notes, remote)) in known:
        return None, content
    with contextlib.ExitStack() as held:
        copies = [held.enter_context(local_copy(uri, remote, spec.max_bytes)) for uri in uris]
        try:
            if notes is not None and any(map(is_remote, uris)):
                known |= _stored(clip, content_of(*(copy.path for copy in copies)), spec, notes)
            decoded, content = decode_unless_known(clip, copies[0].path, spec, known, *(c.path for c in copies[1:]))
        except ClipDecodeError as error:
            message = error.message
            for uri, copy in zip(uris, copies, strict=True):
                message = message.replace(str(copy.path), shown(uri))
            raise ClipDecodeError(error.reason, message) from error
        for uri, copy, sha256 in zip(uris, copies, content.split("+"), strict=True):
            if notes is not None and copy.version:
                notes.put(uri, copy.version, sha256)
    return decoded, content


def _stored(clip: Clip, content: str, spec: DecodeConfig, notes: RemoteNotes) -> frozenset[str]:
    """The content, where the store was noted to have it decoded and it is not too long."""
    from avere_ray.media import spec_digest

    medium = notes.medium(spec_digest(spec), media_key(content, clip.start_s, clip.end_s))
    return frozenset([content] if medium is not None and medium["duration_s"] <= spec.max_duration_s else ())


def _noted(uris: Sequence[str], notes: RemoteNotes, remote: RemoteConfig) -> str:
    """What the files held when they were fetched last, where all of them are remote and unchanged; else ""."""
    found = [notes.get(uri) if is_remote(uri) else None for uri in uris]
    same = all(note is not None and note.version == version(uri, remote) for uri, note in zip(uris, found, strict=True))
    return "+".join(note.sha256 for note in found if note is not None) if same else ""


def remote_notes(store: AvStore) -> RemoteNotes:
    """What the store knows of remote files."""
    return RemoteNotes(store.folder / REMOTE)


def size_and_time(uri: str) -> tuple[int, int]:
    """Bytes and modification time (ns) of a file; zeros when it is remote or cannot be examined."""
    try:
        status = os.stat(uri)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns
