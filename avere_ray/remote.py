"""Media that are no local files: s3:// and gs:// through pyarrow's file systems, http(s):// from allowed hosts alone.

A remote file is copied to a nameless one before it is decoded, within limits of bytes and time. Redirects lead to
allowed hosts only, and never from https to http. An address of an object store may name another endpoint, which must be
an allowed host too: s3://BUCKET/NAME?endpoint_override=HOST:PORT&scheme=http. `remote_notes` remembers what files held.
"""

import contextlib
import functools
import re
import string
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.config import RemoteConfig
from avere_ray.errors import AvereError, ClipDecodeError, InputError
from avere_ray.nameless_file import NamelessFile
from avere_ray.public_hosts import NotPublic, public_handlers

if TYPE_CHECKING:
    import urllib.request

SCHEMES = ("s3", "gs", "http", "https")
"""What an address may begin with."""
_PORTS = {"http": 80, "https": 443}
_HARMLESS = {"region", "project_id", "retry_limit_seconds", "force_virtual_addressing"}
"""Options of object stores that do not say which server is asked."""
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_CHUNK = 1 << 20
_ANSWER_S = 30.0
"""A server that says nothing for so long does not answer."""
_PAUSE_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalCopy:
    """A media file where FFmpeg can read it."""

    path: Path
    version: str = ""
    """What the server told of a remote file; "" when it told nothing, and for local files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """A remote file that is being read."""

    stream: BufferedIOBase
    size: int | None
    version: str


class _Unanswered(Exception):
    """The server failed in a way that may pass; the message says how."""


def is_remote(uri: str) -> bool:
    """Whether a uri is an address and no path."""
    return "://" in uri


def absolute_uri(uri: str, root: Path) -> str:
    """A path made absolute, relative to `root`; an address as it is."""
    return uri if is_remote(uri) else str((root / uri).absolute())


def shown(uri: str) -> str:
    """A uri as messages show it: without user and password, and without the query, which may hold a signature."""
    if not is_remote(uri):
        return uri
    scheme, _, rest = uri.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def check_address(uri: str, cfg: RemoteConfig, what: str) -> None:
    """Refuses an address from which nothing may be fetched.

    Raises:
        InputError: its scheme is unknown, it holds a password, or its host or endpoint is not in
            data.remote.http_hosts. `what` begins the message.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise InputError(
            f"{what}: uri {shown(uri)!r} begins with {parts.scheme!r}; allowed are {', '.join(SCHEMES)}, and paths. "
            "Give a path, for instance on a shared volume, or copy the files to one of these."
        )
    if parts.scheme in _PORTS and ("@" in parts.netloc or not parts.hostname):
        raise InputError(f"{what}: a uri of {parts.scheme} must name a host, and no user or password.")
    if parts.scheme in _PORTS and not _allowed(parts, cfg):
        allowed = ", ".join(cfg.http_hosts) or "none"
        raise InputError(
            f"{what}: uri {shown(uri)!r} is on host {parts.netloc}; allowed by data.remote.http_hosts: {allowed}. Add "
            "the host if you trust what it serves, or copy the files."
        )
    if parts.scheme not in _PORTS:
        if not _PLAIN.fullmatch(parts.netloc.rpartition("@")[2].partition(":")[0]) or not parts.path.strip("/"):
            raise InputError(f"{what}: uri {shown(uri)!r} must be {parts.scheme}://BUCKET/NAME.")
        if ":" in parts.netloc:
            raise InputError(
                f"{what}: uri {shown(uri)!r} holds a password or a port. Remove it; credentials are taken from the "
                "environment, and another server is named by endpoint_override."
            )
        _check_options(uri, cfg, what)
        _check_installed(parts.scheme)


def _check_options(uri: str, cfg: RemoteConfig, what: str) -> None:
    """Refuses options of an object store that lead to a server which is not allowed.

    Raises:
        InputError: they do, or an option is unknown, stands there twice or holds strange characters.
    """
    given = urllib.parse.parse_qsl(uri.partition("?")[2], keep_blank_values=True)
    options = dict(given)
    bad = sorted(set(options) - _HARMLESS - {"endpoint_override", "scheme"})
    bad += [n for n, v in given if not (_HOST if n == "endpoint_override" else _PLAIN).fullmatch(v)]
    if bad or len(options) < len(given):
        allowed = ", ".join(sorted({*_HARMLESS, "endpoint_override", "scheme"}))
        raise InputError(
            f"{what}: uri {shown(uri)!r} has the option {bad[0] if bad else given[0][0]!r}, which is unknown, given "
            f"twice or no plain text; allowed are {allowed}, each once. Correct the address."
        )
    if not {"endpoint_override", "scheme"} & set(options):
        return
    endpoint = urllib.parse.urlsplit(f"{options.get('scheme', 'https')}://{options.get('endpoint_override', '')}")
    if endpoint.scheme not in _PORTS or cfg.public_only or not _allowed(endpoint, cfg):
        allowed = "no such server" if cfg.public_only else ", ".join(cfg.http_hosts) or "none"
        raise InputError(
            f"{what}: uri {shown(uri)!r} is to be fetched from {endpoint.geturl()}; allowed by data.remote.http_hosts: "
            f"{allowed}. Add that host if you trust what it serves, or remove endpoint_override and scheme."
        )


@contextlib.contextmanager
def local_copy(uri: str, cfg: RemoteConfig, max_bytes: int) -> Iterator[LocalCopy]:
    """A local file with what `uri` holds: itself, or within the block a temporary copy of a remote one.

    Raises:
        ClipDecodeError: file_missing, too_large, timeout, remote_refused (no permission, or a redirect to a host that
            is not allowed) or remote_unreachable.
        StorageError: the temporary copy cannot be written.
    """
    if not is_remote(uri):
        yield LocalCopy(path=Path(uri))
        return
    with contextlib.closing(NamelessFile()) as file:
        told = _patiently(uri, cfg, lambda deadline: _copy(uri, cfg, max_bytes, file, deadline))
        yield LocalCopy(path=file.path, version=told)


def version(uri: str, cfg: RemoteConfig) -> str:
    """What the server tells of a file's version now; "" when it tells nothing or cannot be asked."""
    try:
        return _patiently(uri, cfg, lambda deadline: _head(uri, cfg))
    except ClipDecodeError:
        return ""


def _patiently(uri: str, cfg: RemoteConfig, ask: Callable[[float], str]) -> str:
    """What `ask` gives, which is called again while the server fails; it is told when time is up (monotonic)."""
    deadline = time.monotonic() + cfg.timeout_s
    for attempt in range(1, cfg.attempts + 1):
        try:
            return ask(deadline)
        except _Unanswered as error:
            pause = _PAUSE_S * 2 ** (attempt - 1)
            if attempt == cfg.attempts or time.monotonic() + pause > deadline:
                times = f" ({attempt} times)" if attempt > 1 else ""
                raise ClipDecodeError(
                    "remote_unreachable",
                    f"{shown(uri)}: it cannot be fetched{times}: {error}. Check the address, the network and the "
                    "credentials, and run again.",
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def _copy(uri: str, cfg: RemoteConfig, max_bytes: int, file: NamelessFile, deadline: float) -> str:
    """Copies a remote file into `file`; returns its version."""
    file.empty()
    copied = 0
    with _failures_named(uri), _opened(uri, cfg) as opened:
        _check_size(uri, opened.size or 0, max_bytes)
        while chunk := opened.stream.read1(_CHUNK):  # what is there already: a whole chunk may never come
            copied += len(chunk)
            _check_size(uri, copied, max_bytes)
            if time.monotonic() > deadline:
                what = f"it did not arrive within {cfg.timeout_s:g} s ({copied} bytes did)"
                remedy = "Its server is slow; raise data.remote.timeout_s or copy the file"
                raise ClipDecodeError("timeout", f"{shown(uri)}: {what}. {remedy}.")
            file.write(chunk)
        if opened.size is not None and copied < opened.size:
            raise _Unanswered(f"it ended after {copied} of {opened.size} bytes")
        return opened.version


def _check_size(uri: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        what = f"the file has {size} bytes or more, allowed are {max_bytes}"
        raise ClipDecodeError("too_large", f"{shown(uri)}: {what}. Cut it, or raise data.decode.max_bytes.")


def _head(uri: str, cfg: RemoteConfig) -> str:
    with _failures_named(uri):
        if urllib.parse.urlsplit(uri).scheme in _PORTS:
            with _asked(uri, cfg, "HEAD") as answer:
                return _http_version(answer.headers)
        system, path = _file_system(uri)
        return _object_version(_object_info(system, path, uri))


@contextlib.contextmanager
def _failures_named(uri: str) -> Iterator[None]:
    """Turns what libraries raise into a refusal of the file, or into `_Unanswered`."""
    import http.client

    try:
        yield
    except AvereError:
        raise
    except ValueError as error:  # of the address; pyarrow's ArrowInvalid is one
        raise _refused(uri, str(error) or type(error).__name__) from error
    except (OSError, http.client.HTTPException) as error:
        words = str(error) or type(error).__name__
        if "ACCESS_DENIED" in words or "Access Denied" in words or "Forbidden" in words:
            raise _refused(uri, words) from error
        raise _Unanswered(words) from error


@contextlib.contextmanager
def _opened(uri: str, cfg: RemoteConfig) -> Iterator[_Opened]:
    if urllib.parse.urlsplit(uri).scheme in _PORTS:
        with _asked(uri, cfg, "GET") as answer:
            length = answer.headers.get("Content-Length")
            size = int(length) if length and length.isdecimal() else None
            yield _Opened(stream=answer, size=size, version=_http_version(answer.headers))
        return
    system, path = _file_system(uri)
    info = _object_info(system, path, uri)
    with system.open_input_stream(path) as stream:
        yield _Opened(stream=stream, size=info.size, version=_object_version(info))


# http --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asked(uri: str, cfg: RemoteConfig, method: str) -> Iterator[Any]:
    """The answer of an HTTP server.

    Raises:
        ClipDecodeError: the file is not there or not for us, or the server leads elsewhere.
        _Unanswered: the server fails.
    """
    import urllib.error
    import urllib.request

    request = urllib.request.Request(_encoded(uri), method=method, headers={"Accept-Encoding": "identity"})
    try:
        with _opener(cfg).open(request, timeout=min(_ANSWER_S, cfg.timeout_s)) as answer:
            yield answer
    except NotPublic as error:
        raise _refused(uri, str(error)) from error
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise _missing(uri, f"the server says {error.code} {error.reason}") from error
        if error.code < 500 and error.code not in (408, 425, 429):
            raise _refused(uri, f"the server says {error.code} {error.reason}") from error
        raise _Unanswered(f"the server says {error.code} {error.reason}") from error


def _encoded(uri: str) -> str:
    """The address as HTTP needs it: letters beyond ASCII and spaces percent-encoded, what is encoded already kept."""
    parts = urllib.parse.urlsplit(uri)
    path, query = (urllib.parse.quote(text, safe=string.punctuation) for text in (parts.path, parts.query))
    return urllib.parse.urlunsplit(parts._replace(path=path, query=query))


def _opener(cfg: RemoteConfig) -> "urllib.request.OpenerDirector":
    """Opens http and https, and follows redirects to allowed hosts alone."""
    import urllib.request

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            parts = urllib.parse.urlsplit(newurl)
            weaker = req.type == "https" and parts.scheme != "https"
            if parts.scheme not in _PORTS or "@" in parts.netloc or weaker or not _allowed(parts, cfg):
                fp.close()
                what = f"the server leads to {shown(newurl)}, which data.remote.http_hosts does not allow"
                raise _refused(req.full_url, what)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return urllib.request.build_opener(Redirects, *(public_handlers() if cfg.public_only else ()))


def _allowed(parts: urllib.parse.SplitResult, cfg: RemoteConfig) -> bool:
    """Whether host and port are on the list; a host alone stands for the scheme's own port."""
    host = (parts.hostname or "").lower()
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:  # no port number
        return False
    names = {f"{host}:{port}"} | ({host} if port == _PORTS[parts.scheme] else set())
    return not names.isdisjoint(entry.lower() for entry in cfg.http_hosts)


def _http_version(headers: Any) -> str:
    tag, changed = headers.get("ETag"), headers.get("Last-Modified")
    return f"{tag or changed} {headers.get('Content-Length') or ''}" if tag or changed else ""


# Object stores -----------------------------------------------------------------------------------------------------


@functools.cache
def _check_installed(scheme: str) -> None:
    """Refuses a scheme that the installed pyarrow was built without.

    Raises:
        InputError: it was.
    """
    from importlib import import_module

    name = {"s3": "S3FileSystem", "gs": "GcsFileSystem"}[scheme]
    try:
        getattr(import_module("pyarrow.fs"), name)
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"the installed pyarrow cannot read {scheme}:// ({error}). Install pyarrow from its own wheels "
            "(pip install --force-reinstall pyarrow), or mount the bucket and give paths."
        ) from error


def _file_system(uri: str) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path in it; options stand in the query of the address."""
    import pyarrow.fs

    rest, _, query = uri.partition("?")
    scheme, _, path = rest.partition("://")
    bucket = path.partition("/")[0]
    try:
        system, _ = pyarrow.fs.FileSystem.from_uri(f"{scheme}://{bucket}{'?' + query if query else ''}")
    except OSError as error:
        raise ClipDecodeError("remote_unreachable", f"{shown(uri)}: {error}. Correct the address.") from error
    return system, path.partition("@")[2] if "@" in bucket else path


def _object_info(system: Any, path: str, uri: str) -> Any:
    import pyarrow.fs

    info = system.get_file_info(path)
    if info.type == pyarrow.fs.FileType.NotFound:
        raise _missing(uri, "there is no such object")
    if info.type == pyarrow.fs.FileType.Directory:
        raise ClipDecodeError("not_a_file", f"{shown(uri)}: this is a folder. Correct the uri in the clip table.")
    return info


def _object_version(info: Any) -> str:
    return f"{info.mtime_ns} {info.size}" if info.mtime_ns else ""


def _missing(uri: str, why: str) -> ClipDecodeError:
    return ClipDecodeError(
        "file_missing",
        f"{shown(uri)}: the file does not exist ({why}). Put it there, or correct the uri in the clip table.",
    )


def _refused(uri: str, why: str) -> ClipDecodeError:
    return ClipDecodeError(
        "remote_refused", f"{shown(uri)}: it may not be fetched: {why}. Check the address and the credentials."
    )
