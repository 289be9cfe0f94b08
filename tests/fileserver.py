"""A server of files on loopback: HTTP, and the HTTP that S3 and Google Cloud Storage speak; it fails when told to."""

import contextlib
import functools
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

GS = "/storage/v1/b/"


class Files(http.server.ThreadingHTTPServer):
    """Serves files by path; `answers` by path come first, one per request: a status, a redirect, or how to `_send`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[int | str]] = {}
        self.asked: list[str] = []
        self.version = "1"
        self.with_length = self.with_version = True
        self.hold = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Files

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {name}")
        waiting = self.server.answers.get(name, [])
        special = waiting.pop(0) if waiting else None
        if isinstance(special, str) and "://" in special:
            self.send_response(302)
            self.send_header("Location", special)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if name.startswith(GS) and "alt=media" not in self.path and self._describe(name):
            return
        data = self.server.files.get(name)
        if isinstance(special, int) or data is None:
            self.send_response(special if isinstance(special, int) else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if self.server.with_version:
            self.send_header("ETag", f'"{self.server.version}"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")
        if self.server.with_length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self._send(data, special)

    def _send(self, data: bytes, how: int | str | None) -> None:
        """The file, whole; or "cut" to half of it, "hang" before it, or its first bytes as a "trickle"."""
        if how == "hang":
            self.server.hold.wait(5)
        elif how == "trickle":
            with contextlib.suppress(ConnectionError):  # nobody listens any more
                for start in range(min(len(data), 500)):
                    self.wfile.write(data[start : start + 1])
                    self.server.hold.wait(0.01)
        else:
            self.wfile.write(data[: len(data) // 2] if how == "cut" else data)

    def _describe(self, name: str) -> bool:
        """What Google's JSON interface tells of an object; False when there is none."""
        data = self.server.files.get(name)
        if data is None:
            return False
        bucket, _, key = name.removeprefix(GS).partition("/o/")
        told = {"kind": "storage#object", "bucket": bucket, "name": key, "size": str(len(data)), "generation": "1"}
        body = json.dumps({**told, "updated": "2026-10-21T07:28:00.000Z", "timeCreated": "2026-10-21T07:28:00.000Z"})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
        return True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def file_server() -> Iterator[Files]:
    """The running server."""
    with Files() as files:
        thread = threading.Thread(target=functools.partial(files.serve_forever, poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield files
        finally:
            files.hold.set()
            files.shutdown()
            thread.join(timeout=10)
