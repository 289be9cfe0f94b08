"""`avere-ray ask` without an engine: its arguments, what it prints, and a server that answers, refuses or is away."""

import json
import threading
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avere_ray.endpoint.clips import TOKEN_VARIABLE, ClipServer
from avere_ray.errors import ConfigError
from jobs.ask import main, told
from jobs.command import Terminated

INSIGHT: dict[str, Any] = {
    "emotion": "sadness",
    "answer": "She is sad. I see tears, and rain says nothing.",
    "cues": [
        {"text": "tears", "modality": "video", "confidence": 0.75, "span": [18, 23], "use": "relied_on"},
        {"text": "rain", "modality": "audio", "confidence": 0.5, "span": [29, 33], "use": "set_aside"},
    ],
    "agreement": {"face": "sadness", "voice": "anger", "agree": False, "confidence": 0.875},
    "grounding": {
        "audio": {"removed": -0.5, "swapped": 1.0},
        "video": {"removed": 4.0, "swapped": 2.0},
        "text_only": 6.0,
    },
    "cost": {"passes": 31, "tokens": 3000},
}
Answer = Callable[[str, dict[str, str]], tuple[int, Any]]
"""Path and fields of a form to status and body."""


class Handler(BaseHTTPRequestHandler):
    """Answers with the server's `reply`, and keeps what was asked."""

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + body)
        self._reply({p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
                     for p in form.iter_parts()})  # type: ignore[attr-defined, misc]  # fmt: skip

    def _reply(self, fields: dict[str, Any]) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization"), fields))
        status, body = server.reply(self.path, fields)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def served(path: str, fields: dict[str, str]) -> tuple[int, Any]:
    if path == "/v1/models":
        return 200, {"data": [{"id": "base"}, {"id": "base:adapter-1"}]}
    return 200, INSIGHT


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked, found.reply = [], served  # type: ignore[attr-defined]
        found.url = f"http://127.0.0.1:{found.server_port}"  # type: ignore[attr-defined]
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(10)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    (path := tmp_path / "a.mp4").write_bytes(b"\x00clip\r\n--x")
    return str(path)


def test_a_server_is_asked_for_its_newest_model(
    server: Any, clip: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert main([clip, "How is she — and why?", "--endpoint", f"{server.url}/v1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"] == [{"model": "base:adapter-1", **INSIGHT}]
    path, token, fields = server.asked[-1]
    assert (path, token) == ("/v1/emotion", "Bearer secret")
    assert fields == {"model": b"base:adapter-1", "question": "How is she — and why?".encode(), "grounding": b"true",
                      "clip": Path(clip).read_bytes()}  # fmt: skip


def test_base_and_adapter_are_compared(server: Any, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([clip, "q", f"--endpoint={server.url}", "--compare-base", "--no-grounding"]) == 0
    text = capsys.readouterr().out
    assert text.index("base:\n") < text.index("base:adapter-1:\n")
    assert [fields["grounding"] for _, _, fields in server.asked[1:]] == [b"false", b"false"]
    server.asked.clear()
    assert main([clip, "q", "--endpoint", server.url, "--model", "base", "--compare-base"]) == 0
    assert [fields.get("model") for _, _, fields in server.asked] == [None, b"base"]


@pytest.mark.parametrize(
    ("status", "body", "exit_code", "words"),
    [
        (401, {"error": {"message": "no token", "code": "invalid_api_key"}}, 8, f"Set {TOKEN_VARIABLE}"),
        (503, {"error": {"message": "busy"}}, 8, "Ask again in 7 s"),
        (422, {"error": {"message": "no sound", "code": "no_audio_stream"}}, 8, "422 (no_audio_stream): no sound"),
        (404, {"detail": "Not Found"}, 8, "does not offer /v1/emotion"),
        (302, b"", 8, "answers 302"),
        (200, b"<html>", 8, "did not answer with JSON"),
        (200, {"choices": []}, 8, "update one of them"),
    ],
)
def test_what_a_server_may_say(
    server: Any, clip: str, status: int, body: Any, exit_code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda path, fields: (status, body) if path == "/v1/emotion" else served(path, fields)
    assert main([clip, "q", "--endpoint", server.url]) == exit_code
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("models", [{"data": []}, {"data": [{}]}, [1]])
def test_a_list_of_models_that_is_none(server: Any, clip: str, models: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server.reply = lambda path, fields: (200, models)
    assert main([clip, "q", "--endpoint", server.url]) == 8
    assert "model" in capsys.readouterr().err


def test_what_is_asked_wrongly(server: Any, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        ([], "give CLIP QUESTION"),
        ([clip], "give CLIP QUESTION"),
        ([str(tmp_path / "none.mp4"), "q"], "there is no clip"),
        ([clip, " "], "the question is empty"),
        ([clip, "q", "--run", str(tmp_path)], "is no run folder"),
        ([clip, "q", "--run", "r", "--endpoint", "e"], "are both given"),
        ([clip, "q", "--model", "base"], "--model is for --endpoint"),
        ([clip, "q", "--endpoint"], "--endpoint needs a value"),
        ([clip, "q", "--endpoint", "file:///etc/passwd"], "no address of a server"),
        ([clip, "q", "--endpoint", server.url, "--model", "other"], "it serves base, base:adapter-1"),
    ]
    for arguments, words in cases:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1, error


def test_nobody_answers(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    assert main([clip, "q", "--endpoint", f"http://127.0.0.1:{port}"]) == 8
    assert f"nobody answers at http://127.0.0.1:{port}" in capsys.readouterr().err


def test_a_token_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds characters"):
        ClipServer("http://127.0.0.1:1", "a\r\nb")


def test_the_answer_as_a_person_reads_it() -> None:
    lines = told("base", INSIGHT, color=False).splitlines()
    assert lines[1] == "  She is sad. I see [tears], and [rain] says nothing."
    assert "alone, the face shows sadness and the voice anger: they disagree (88% sure)" in lines
    assert any(line.split() == ["audio", "rain", "50%", "set", "aside"] for line in lines)
    bars = {line.split()[0] + line.split()[1]: line.count("#") for line in lines if " removed" in line}
    assert bars == {"videoremoved": 24, "audioremoved": 0}
    colored = told("base", INSIGHT, color=True)
    assert "\x1b[34mtears\x1b[0m" in colored and "\x1b[35mrain\x1b[0m" in colored and "[tears]" not in colored


STEERING = "\x1b]0;x\x07\x9b2J\r\x7f\u202e"
"""Title, clear, return, delete, right to left."""


def test_words_of_a_server_do_not_steer_the_terminal(
    server: Any, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cue = {**INSIGHT["cues"][0], "text": f"te{STEERING}ars", "span": [0, len(STEERING) + 5]}
    hostile = {**INSIGHT, "answer": f"te{STEERING}ars\nand more, 👩\u200d🎤", "emotion": STEERING, "cues": [cue]}
    server.reply = lambda path, fields: (200, hostile) if path == "/v1/emotion" else (200, {"data": [{"id": STEERING}]})
    assert main([clip, "q", "--endpoint", server.url]) == 0
    text = capsys.readouterr().out
    assert not [c for c in text if not c.isprintable() and c not in "\n\u200d"]
    assert "[te\ufffd]0;x\ufffd\ufffd2J \ufffd\ufffdars] and more, 👩\u200d🎤" in text
    assert main([clip, "q", "--endpoint", server.url, "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["answers"] == [{"model": STEERING, **hostile}]
    assert "👩" in text and not [c for c in text if not c.isprintable() and c != "\n"]
    server.reply = lambda path, fields: (422, {"error": {"message": f"no {STEERING}", "code": "x"}})
    assert main([clip, "q", "--endpoint", server.url]) == 8
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_what_may_be_missing_is_not_printed() -> None:
    bare = {**INSIGHT, "cues": [], "grounding": None, "emotion": "", "answer": ""}
    text = told("base", bare, color=False)
    assert "(no answer)" in text and "cues: none named" in text and "removed" not in text and "named:" not in text


@pytest.mark.parametrize(("raised", "exit_code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_an_interruption_ends_in_one_line(
    raised: type[BaseException],
    exit_code: int,
    server: Any,
    clip: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: ClipServer) -> list[str]:
        raise raised

    monkeypatch.setattr(ClipServer, "models", interrupted)
    assert main([clip, "q", "--endpoint", server.url]) == exit_code
    assert capsys.readouterr().err == "avere-ray ask: interrupted\n"
