"""A real HTTP server on loopback that speaks OpenAI's chat API; a test says what it answers."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the server sends."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012


class Seen(NamedTuple):
    """What a client sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    def words(self) -> str:
        """The text parts of the last message."""
        return " ".join(part["text"] for part in self.body["messages"][-1]["content"] if part["type"] == "text")


class ChatServer:
    """Answers requests with `reply`, and keeps what it saw."""

    def __init__(self, reply: Callable[[Seen], Answer]) -> None:
        self.reply = reply
        self.seen: list[Seen] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer._answer(self, Seen(self.path, dict(self.headers), json.loads(data)))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _answer(self, handler: BaseHTTPRequestHandler, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        answer = self.reply(seen)
        with self._lock:
            self.in_flight -= 1
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        with contextlib.suppress(OSError):
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)


@contextlib.contextmanager
def chat_server(reply: Callable[[Seen], Answer]) -> Iterator[ChatServer]:
    """A running server."""
    server = ChatServer(reply)
    thread = threading.Thread(target=server._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._server.shutdown()
        server._server.server_close()
        thread.join(10)


def says(text: str, prompt_tokens: int = 100, completion_tokens: int = 10) -> Answer:
    """A successful answer."""
    return Answer(
        body={
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        }
    )


def fails(status: int, code: str = "", message: str = "no", **headers: str) -> Answer:
    """An error, OpenAI's way."""
    return Answer(status, {"error": {"message": message, "code": code}}, headers)
