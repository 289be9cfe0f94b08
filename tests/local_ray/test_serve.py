"""The server as a user starts it: real HTTP on loopback, a real engine, base and adapters, tokens."""

import asyncio
import base64
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from badrequests import bad_requests, for_a_model
from browser import open_browser
from clipmaker import Recipe, write_clip
from corpus import KINDS
from mediahosts import INSIDE, MEDIA, STORE, MediaHosts, media_hosts
from served import (  # fmt: skip
    ADAPTERS,
    ADMIN_TOKEN,
    BASE,
    END_S,
    QUESTION,
    TOKEN,
    Server,
    asked_all_along,
    asking,
    long_answer,
    move_alias,
    register_adapter,
    serving,
    wav,
    write_random_adapter,
    write_run,
)

from avere_ray.config import RunConfig
from avere_ray.records import Rollout
from avere_ray.stages import read_records
from jobs import evaluate

_CHAT = "/v1/chat/completions"
WAIT_S = 120
LIMITS: dict[str, Any] = {"requests_per_minute": 0, "requests_per_token": 16, "champion": "registry",
                          "champion_poll_s": 1, "media_hosts": ["localhost", MEDIA, STORE, INSIDE]}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_run(tmp_path_factory.mktemp("serve") / "run", serve=LIMITS)


@pytest.fixture(scope="module")
def registered(cfg: RunConfig) -> list[str]:
    """Versions in MLflow's registry, which no alias names yet."""
    return [register_adapter(cfg, version=version) for version in (5, 6)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Iterator[MediaHosts]:
    with media_hosts(tmp_path_factory.mktemp("hosts")) as found:
        found.files = {f"{host}/clip.mp4": clip.read_bytes() for host in (MEDIA, STORE, INSIDE)}
        found.leads = {f"{MEDIA}/moved.mp4": f"https://{STORE}/clip.mp4",
                       f"{MEDIA}/inside.mp4": f"https://{INSIDE}/clip.mp4"}  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def server(cfg: RunConfig, registered: list[str], hosts: MediaHosts) -> Iterator[Server]:
    tokens = {"AVERE_RAY_API_TOKEN": TOKEN, "AVERE_RAY_ADMIN_TOKEN": ADMIN_TOKEN}
    with serving(cfg.run_dir, **tokens, **hosts.variables) as started:
        yield started


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0, timeout=60)


def messages(clip: Path | None, question: str = QUESTION) -> Any:
    return asking(clip, question)["messages"]


def test_base_and_adapters_are_offered_on_loopback_to_who_has_a_token(server: Server) -> None:
    assert server.get("/healthz", headers={}).json() == {"status": "ok"}
    assert server.get("/readyz", headers={}).json() == {"status": "ready"}
    assert server.get("/v1/models", headers={}).status_code == 401
    assert [m["id"] for m in server.get("/v1/models").json()["data"]] == [BASE, *ADAPTERS]
    listening = server.listening()
    assert ("127.0.0.1", server.port) in listening
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening  # Ray's own ports too
    assert f"curl -s {server.url}/v1/chat/completions" in server.log.read_text()
    assert TOKEN not in server.log.read_text()


def test_the_official_client_whole_and_streamed(client: openai.OpenAI, clip: Path) -> None:
    assert [m.id for m in client.models.list()] == [BASE, *ADAPTERS]
    asked: Any = {"model": BASE, "messages": messages(clip), "temperature": 0, "max_tokens": 12}
    sound = {"mm_processor_kwargs": {"use_audio_in_video": True}}
    whole = client.chat.completions.create(**asked, extra_body=sound, logprobs=True, top_logprobs=2)
    stream = client.chat.completions.create(
        **asked, extra_body=sound, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content != ""
    assert len(chunks) > 4
    assert chunks[-1].usage == whole.usage
    logps = whole.choices[0].logprobs.content  # type: ignore[union-attr]
    assert "".join(token.token for token in logps).startswith(said[:5])
    assert all(len(token.top_logprobs) == 2 and token.top_logprobs[0].logprob >= token.logprob for token in logps)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=messages(clip))


def test_answers_are_bound_to_json(client: openai.OpenAI, clip: Path) -> None:
    schema = {"type": "object", "properties": {"emotion": {"enum": ["happiness", "sadness"]}},
              "required": ["emotion"], "additionalProperties": False}  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "emotion", "schema": schema, "strict": True}}
    reply = client.chat.completions.create(
        model=BASE, messages=messages(clip), response_format=form, max_tokens=40, temperature=0
    )
    assert json.loads(reply.choices[0].message.content or "")["emotion"] in ("happiness", "sadness")
    broken: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "frob"}}}
    with pytest.raises(openai.BadRequestError, match="frob"):
        client.chat.completions.create(model=BASE, messages=messages(clip), response_format=broken)


def test_base_and_adapters_answer_in_one_batch_as_they_do_alone(server: Server, clip: Path) -> None:
    models = [BASE, *ADAPTERS]
    alone = [server.answers(clip, temperature=0.0, model=m) for m in models]
    assert len({tuple(answer) for answer in alone}) == 3

    async def together() -> list[httpx.Response]:
        async with httpx.AsyncClient(headers=server.headers, timeout=60) as http:
            url = f"{server.url}/v1/chat/completions"
            bodies = [asking(clip, temperature=0.0, model=m) for m in models * 4]
            return await asyncio.gather(*[http.post(url, json=body) for body in bodies])

    replies = asyncio.run(together())
    assert [r.status_code for r in replies] == [200] * 12
    assert [[c["message"]["content"] for c in r.json()["choices"]] for r in replies] == alone * 4


def test_a_seed_repeats_the_samples_and_usage_adds_up(server: Server, clip: Path) -> None:
    wanted: dict[str, Any] = {"n": 3, "seed": 7, "max_tokens": 5, "temperature": 2.0, "model": ADAPTERS[0]}
    first = server.answers(clip, **wanted)
    assert len(set(first)) > 1
    assert server.answers(clip, **wanted) == first
    assert server.answers(clip, **{**wanted, "seed": 8}) != first
    usage = server.ask(clip, **wanted).json()["usage"]
    assert 3 <= usage["completion_tokens"] <= 15
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_media_in_every_combination(server: Server, clip: Path, tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    off = {"mm_processor_kwargs": {"use_audio_in_video": False}}
    bodies = {
        "words": asking(None),
        "video": asking(silent, **off),
        "video of a clip": asking(clip, **off),
        "both": asking(clip),
        "video and sound": asking(silent, QUESTION, wav()),
        "sound": asking(None, QUESTION, wav(2.0)),
    }
    tokens = {}
    for name, body in bodies.items():
        reply = server.post({**body, "temperature": 0.0, "max_tokens": 4})
        assert reply.status_code == 200, (name, reply.text)
        tokens[name] = reply.json()["usage"]["prompt_tokens"]
    assert tokens["words"] < tokens["video"] == tokens["video of a clip"] < tokens["both"]
    assert tokens["words"] < tokens["sound"]
    assert tokens["video"] < tokens["video and sound"]


def test_requests_that_cannot_be_answered(server: Server, clip: Path, tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    (broken := tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:3000])
    private = {"type": "video_url", "video_url": {"url": "https://localhost/clip.mp4"}}
    other = {"type": "video_url", "video_url": {"url": "https://169.254.169.254/latest/meta-data"}}
    local = {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}
    cases = [
        (server.ask(silent), 422, "no_audio_stream"),
        (server.ask(broken), 422, "corrupt"),
        (server.ask(clip, model="other"), 404, "model_not_found"),
        (server.ask(clip, max_tokens=5000), 400, "context_length_exceeded"),
        (server.ask(clip, question="What is this? <|VIDEO|>"), 400, "invalid_value"),
        (server.post(asking(None, QUESTION, private)), 422, "remote_refused"),
        (server.post(asking(None, QUESTION, other)), 400, "host_not_allowed"),
        (server.post(asking(None, QUESTION, local)), 400, "unsupported_url"),
        (server.ask(clip, stream=True, max_tokens=5000), 400, "context_length_exceeded"),
        (server.post(asking(clip), headers={"Authorization": "Bearer x"}), 401, "invalid_api_key"),
        (server.post({"path": "/x"}, "/v1/admin/champion"), 403, "forbidden"),
        (server.post(asking(clip), headers={**server.headers, "Origin": "http://["}), 403, "forbidden"),
    ]
    for reply, status, code in cases:
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
        assert "Traceback" not in reply.text
        assert "clip-" not in reply.text  # the name of the temporary file
    headers = {**server.headers, "Content-Type": "application/json"}
    url = f"{server.url}/v1/chat/completions"
    reply = httpx.post(url, content=b" " * (65 * 2**20), headers=headers, timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    for content in (b"[" + b"[]," * 2_000_000 + b"[]]", b'{"messages":[' + b"{}," * 90_000 + b"{}]}"):
        reply = httpx.post(url, content=content, headers=headers, timeout=60)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")
    assert server.answers(clip)


def test_a_stranger_is_refused_before_its_body_has_come(server: Server) -> None:
    declared = {"Host": f"127.0.0.1:{server.port}", "Content-Type": "application/json", "Content-Length": 60 * 2**20}
    for path, status in ((_CHAT, 401), ("/v1/emotion", 401), ("/healthz", 405)):
        head = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in declared.items()), "", ""]
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall("\r\n".join(head).encode() + b'{"model":')
            assert connection.recv(64).startswith(f"HTTP/1.1 {status} ".encode())


def test_media_are_fetched_from_hosts_on_the_list(server: Server, clip: Path, hosts: MediaHosts) -> None:
    def ask(place: str) -> httpx.Response:
        there = {"type": "video_url", "video_url": {"url": f"https://{place}"}}
        return server.post(asking(None, QUESTION, there, temperature=0.0))

    found = [ask(f"{MEDIA}/{name}").json()["choices"][0]["message"]["content"] for name in ("clip.mp4", "moved.mp4")]
    assert found == server.answers(clip, temperature=0.0) * 2
    assert hosts.asked == [f"{MEDIA}/clip.mp4", f"{MEDIA}/moved.mp4", f"{STORE}/clip.mp4"]
    refused = [ask(place) for place in (f"{MEDIA}/inside.mp4", f"{INSIDE}/clip.mp4")]  # that name is an address within
    assert [r.json()["error"]["code"] for r in refused] == ["remote_refused"] * 2
    assert hosts.asked[3:] == [f"{MEDIA}/inside.mp4"]


def test_a_token_has_so_many_requests_at_once(server: Server, clip: Path) -> None:
    async def crowd() -> list[httpx.Response]:
        async with httpx.AsyncClient(headers=server.headers, timeout=120) as http:
            body = long_answer(clip, 60)
            return await asyncio.gather(*[http.post(server.url + _CHAT, json=body) for _ in range(24)])

    replies = asyncio.run(crowd())
    refused = [r for r in replies if r.status_code != 200]
    assert 0 < len(refused) <= 24 - LIMITS["requests_per_token"]
    assert {(r.status_code, r.json()["error"]["code"]) for r in refused} == {(429, "concurrency_limit_exceeded")}
    assert all(int(r.headers["Retry-After"]) >= 1 for r in refused)


def test_broken_media_of_every_kind_are_refused_with_a_reason(server: Server, tmp_path: Path) -> None:
    replies = {}
    for name, kind in KINDS.items():
        if kind.reasons:
            kind.make(path := tmp_path / f"{name}.{kind.suffix}")
            if path.is_file():
                replies[name] = server.ask(path, max_tokens=1)
    wrong = {n: r.text for n, r in replies.items() if r.status_code not in (200, 400, 422) or "Traceback" in r.text}
    assert not wrong
    assert len(replies) >= 30
    assert server.get("/healthz").status_code == 200


def test_whatever_is_sent_gets_an_answer_in_order(server: Server) -> None:
    generated = bad_requests(server.get("/openapi.json").json())
    heard: list[httpx.Response] = []
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as http:
        for path, kind, content in [*generated, *for_a_model(generated, BASE)]:
            heard.append(http.post(path, content=content, headers={"Content-Type": kind}))
    assert sum(r.status_code != 200 for r in heard[: len(generated)]) >= 500  # no two alike
    assert {r.status_code for r in heard} <= {200, 400, 401, 403, 404, 413, 415, 422, 429, 503}
    assert all(set(r.json()["error"]) == {"message", "type", "param", "code"} for r in heard if r.status_code != 200)
    assert not any("Traceback" in r.text for r in heard)
    assert server.get("/readyz").status_code == 200


def test_who_goes_away_is_not_worked_for(server: Server, clip: Path) -> None:
    body = long_answer(clip, 200, stream=True, n=4)
    url = f"{server.url}/v1/chat/completions"
    made = figure(server, 'tokens_total{kind="completion"')
    with httpx.stream("POST", url, json=body, headers=server.headers, timeout=60) as reply:
        next(lines := reply.iter_lines())
        assert figure(server, "engine_requests{") >= 1
        del lines
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={**body, "stream": False}, headers=server.headers, timeout=1.0)
    until(lambda: figure(server, "engine_requests{") == figure(server, "requests_in_work{") == 0)
    assert figure(server, 'tokens_total{kind="completion"') == made  # what was worked for to its end would be counted


def figure(server: Server, name: str) -> float:
    """One of the figures for Prometheus; 0 where it is not there yet."""
    lines = server.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"avere_ray_{name}")), 0.0)


def test_the_registrys_champion_is_loaded_and_moves_under_load(
    server: Server, clip: Path, cfg: RunConfig, registered: list[str]
) -> None:
    move_alias(cfg, registered[0])
    until(lambda: "champion" in [m["id"] for m in server.get("/v1/models").json()["data"]])
    first = server.answers(clip, model="champion", temperature=0.0)
    with asked_all_along(server, clip, "champion") as heard:
        move_alias(cfg, registered[1])
        until(lambda: server.answers(clip, model="champion", temperature=0.0) != first)
    second = server.answers(clip, model="champion", temperature=0.0)
    assert_only(heard, first, second)


def test_an_administrator_moves_the_champion_under_load(server: Server, clip: Path, cfg: RunConfig) -> None:
    admin = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    folders = [cfg.run_dir.parent / f"champion-{i}" for i in (3, 4)]
    for version, folder in enumerate(folders, start=3):
        write_random_adapter(cfg, folder, version=version)
    moved = server.post({"path": str(folders[0])}, "/v1/admin/champion", headers=admin)
    assert (moved.status_code, moved.json()["problem"]) == (200, None), moved.text
    first = server.answers(clip, model="champion", temperature=0.0)
    with asked_all_along(server, clip, "champion") as heard:
        assert server.post({"path": str(folders[1])}, "/v1/admin/champion", headers=admin).status_code == 200
        second = server.answers(clip, model="champion", temperature=0.0)
    assert first != second
    assert_only(heard, first, second)
    refused = server.post({"path": str(cfg.run_dir)}, "/v1/admin/champion", headers=admin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "adapter_refused")
    refused = server.post({"path": "\0"}, "/v1/admin/champion", headers=admin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "adapter_refused")
    assert server.answers(clip, model="champion", temperature=0.0) == second


def assert_only(heard: list[httpx.Response], *answers: list[str]) -> None:
    """Every request was answered, with one of these answers."""
    assert heard and {r.status_code for r in heard} == {200}
    assert all([c["message"]["content"] for c in r.json()["choices"]] in answers for r in heard)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_it_can_be_evaluated_as_a_remote_model(server: Server, clip: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "clips.jsonl").write_text(json.dumps({"clip_id": "c", "uri": "clip.mp4", "split": "test"}))
    question = {"id": "q", "video": "clip.mp4", "task": "modality_agreement", "question": "Do face and voice agree?",
                "choices": ["(A) Yes", "(B) No"], "answer": "A"}  # fmt: skip
    (folder / "emorealm.json").write_text(json.dumps([question]))
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    endpoint = {"url": f"{server.url}/v1", "model": BASE}
    run = RunConfig.model_validate(
        {"run_dir": tmp_path / "run", "data": {"clips": folder},
         "evaluation": {"endpoint": endpoint, "media": "file", "max_tokens": 8}}
    )  # fmt: skip
    manifest = evaluate.run_remote(run)
    assert (manifest.used, manifest.summary["remote_answers"]) == (1, 1)
    [answer] = read_records(tmp_path / "run" / "evals" / "before" / "predictions.parquet", Rollout)
    words = "Do face and voice agree? (A) Yes (B) No"
    assert [answer.text] == [a.strip() for a in server.answers(clip, question=words, temperature=0, max_tokens=8)]
    assert manifest.summary["remote_prompt_tokens"] > 80  # words alone are about 40


def test_what_an_answer_rests_on(server: Server, clip: Path) -> None:
    def explained(**fields: str) -> httpx.Response:
        files = {"clip": ("clip.mp4", clip.read_bytes(), "video/mp4")}
        return httpx.post(f"{server.url}/v1/emotion", files=files, data=fields, headers=server.headers, timeout=120)

    reply = explained(model=BASE, question=QUESTION)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["answer"] == server.answers(clip, temperature=0.0)[0]
    assert found["grounding"]["references"] >= 2 and found["cost"]["passes"] >= 1 + 14 + 4 + 2 * 2
    given = explained(model=ADAPTERS[0], question=QUESTION, answer="I see tears.", grounding="false").json()
    assert (given["answer"], given["grounding"]) == ("I see tears.", None)
    assert [(c["text"], c["modality"]) for c in given["cues"]] == [("tears", "video")]
    data = base64.b64encode(clip.read_bytes()).decode()
    body = {"model": BASE, "url": f"data:video/mp4;base64,{data}", "answer": found["answer"], "question": QUESTION}
    assert server.post(body, "/v1/emotion").json()["grounding"] == found["grounding"]
    endless = {"question": "What?" + "\n" * 8000 + "Why?", "answer": "show box " * 900}
    assert explained(model=BASE, grounding="false", **endless).status_code == 200  # it is read in seconds, not minutes
    halves = json.dumps({**body, "question": "\ud800"}).encode()
    kind = {"Content-Type": "application/json", **server.headers}
    cases = [(httpx.post(f"{server.url}/v1/emotion", content=halves, headers=kind, timeout=60), 400),
             (explained(model="other"), 404), (explained(question="<|VIDEO|>"), 400), (explained(unknown="x"), 400),
             (explained(question="x" * 9000, answer="y" * 9000), 400),  # serve.max_text
             (server.post({"url": "https://localhost/a.mp4"}, "/v1/emotion"), 422),
             (server.post({"url": "file:///etc/passwd"}, "/v1/emotion"), 400)]  # fmt: skip
    for reply, status in cases:
        assert reply.status_code == status and set(reply.json()) == {"error"}, reply.text


def test_the_page_asks_base_and_adapter_side_by_side(server: Server, tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile") as browser:
        browser.look(width=1280, height=900)
        browser.open(f"{server.url}/")
        browser.wait("!document.querySelector('#token-form').hidden")
        browser.type(TOKEN)
        browser.press("Enter")
        browser.wait("document.querySelectorAll('#models input').length > 1")
        browser.wait("document.querySelectorAll('#samples button').length > 1")
        browser.complaints.clear()  # the refusal before the token
        browser.click("#samples li:nth-child(3) button")
        browser.wait("!document.querySelector('#send').disabled")
        browser.click("#send")
        browser.wait("document.querySelectorAll('.grounding tr').length === 10")
        said = browser.run("[...document.querySelectorAll('.said')].map(e => e.textContent)")
        assert len(said) == 2 and said[0] != said[1] and browser.complaints == []


def test_sigterm_lets_what_is_in_work_end(server: Server, clip: Path) -> None:
    body = long_answer(clip, 20, stream=True)
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=server.headers, timeout=60) as reply:
        lines = reply.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert server.process.wait(timeout=END_S) == 0
    assert "serve: ended" in server.log.read_text()
    assert QUESTION not in server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")
