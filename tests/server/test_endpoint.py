"""The door to remote models, against a real server on loopback: retries, rates, budgets, refusals, secrets."""

import base64
import io
import itertools
import threading
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avere_ray.config import EndpointConfig
from avere_ray.endpoint import (
    Endpoint,
    Reply,
    Request,
    audio_part,
    image_part,
    json_schema,
    text_part,
    user,
    video_part,
    wav,
)
from avere_ray.errors import ConfigError, EndpointError, RequestRefused, RequestsLeft
from tests.chatserver import Answer, Seen, chat_server, fails, says


def config(url: str, **settings: Any) -> EndpointConfig:
    return EndpointConfig(url=url, model="some-model", **settings)


def ask(text: str = "Who?", **fields: Any) -> Request:
    return Request(messages=[user(text_part(text))], max_tokens=8, **fields)


class Time:
    """A clock that pauses move on."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        with self._lock:
            self.pauses.append(seconds)
            self.now += seconds


def endpoint(url: str, time: Time | None = None, **settings: Any) -> Endpoint:
    time = time or Time()
    return Endpoint(config(url, **settings), clock=time.clock, pause=time.pause, seed=0)


def scripted(*answers: Answer) -> Any:
    found = iter(answers)
    return lambda seen: next(found)


def test_a_request_carries_words_media_schema_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    sound = wav(np.array([0.0, 1.0, -1.0], dtype=np.float32))
    parts = (text_part("Who?"), video_part(b"clip"), audio_part(sound), image_part(b"picture"))
    form = json_schema("verdict", {"type": "object"})
    with chat_server(lambda seen: says("Anna", 7, 3)) as server:
        asked = endpoint(server.url, key_variable="SOME_KEY", price_in=1.0, price_out=10.0)
        reply = asked.ask(
            Request(messages=[user(*parts)], max_tokens=5, seed=4, response_format=form, extra={"top_k": 1})
        )
    assert reply == Reply(text="Anna", finish_reason="stop", prompt_tokens=7, completion_tokens=3)
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == "Bearer sk-secret"
    assert {k: v for k, v in seen.body.items() if k != "messages"} == {
        "model": "some-model", "max_tokens": 5, "temperature": 0.0, "seed": 4, "response_format": form, "top_k": 1,
    }  # fmt: skip
    _, video, audio, image = seen.body["messages"][0]["content"]
    assert video["video_url"]["url"] == "data:video/mp4;base64," + base64.b64encode(b"clip").decode()
    assert image["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"picture").decode()
    with wave.open(io.BytesIO(base64.b64decode(audio["input_audio"]["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 3)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [0, 32767, -32767]
    assert asked.usage.to_json() == {
        "requests": 1, "answers": 1, "prompt_tokens": 7, "completion_tokens": 3, "estimated_tokens": 0, "cost": 3.7e-05,
    }  # fmt: skip


@pytest.mark.parametrize(
    "first",
    [fails(429), fails(503), fails(500), fails(408), Answer(200, b"<html>"), Answer(200, {"choices": []})],
    ids=["429", "503", "500", "408", "no-json", "no-choice"],
)
def test_a_busy_server_is_asked_again_after_growing_pauses(first: Answer) -> None:
    time = Time()
    with chat_server(scripted(first, first, first, says("yes"))) as server:
        assert endpoint(server.url, time).ask(ask()).text == "yes"
    assert len(server.seen) == 4
    assert [0.25 * 2**i <= pause <= 0.5 * 2**i for i, pause in enumerate(time.pauses)] == [True] * 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
    ],
)
def test_a_server_that_names_its_pause_gets_it(headers: dict[str, str], seconds: float) -> None:
    time = Time()
    with chat_server(scripted(fails(429, **headers), says("yes"))) as server:
        assert endpoint(server.url, time).ask(ask()).text == "yes"
    assert sum(time.pauses) == pytest.approx(seconds)


def test_a_pause_beyond_the_limit_ends_it_and_says_how_to_go_on() -> None:
    with (
        chat_server(scripted(fails(429, **{"Retry-After": "3600"}))) as server,
        pytest.raises(EndpointError, match=r"asks to wait 3600 s .*run the same command again later"),
    ):
        endpoint(server.url).ask(ask())


def test_attempts_are_bounded_and_a_closed_port_is_named() -> None:
    with chat_server(lambda seen: fails(503, message="overloaded")) as server:
        url = server.url
        with pytest.raises(EndpointError, match=r"no answer in 3 attempts \(last: 503: overloaded\)"):
            endpoint(url, attempts=3).ask(ask())
        assert len(server.seen) == 3
    with pytest.raises(EndpointError, match=r"some-model at http://127.0.0.1.*refused"):
        endpoint(url, attempts=2).ask(ask())


def test_an_answer_that_does_not_come_in_time_is_given_up() -> None:
    release = threading.Event()
    with chat_server(lambda seen: (release.wait(10), says("late"))[1]) as server:
        with pytest.raises(EndpointError, match="timed out"):
            endpoint(server.url, timeout_s=0.05, attempts=2).ask(ask())
        release.set()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (fails(400, "content_filter", "filtered"), RequestRefused, r"400 \(content_filter\): filtered"),
        (fails(413), RequestRefused, "413"),
        (fails(401, message="bad key sk-secret"), EndpointError, r"401: bad key \.\.\.\. Set SOME_KEY"),
        (fails(404, "model_not_found", "no such model"), EndpointError, "no such model"),
        (fails(429, "insufficient_quota", "pay"), EndpointError, "quota is used up"),
        (Answer(302, {}, {"Location": "http://127.0.0.1:1/elsewhere"}), EndpointError, "302"),
    ],
    ids=["filtered", "too-large", "key", "model", "quota", "redirect"],
)
def test_refusals_are_told_at_once(
    answer: Answer, kind: type[EndpointError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with chat_server(lambda seen: answer) as server, pytest.raises(EndpointError, match=words) as caught:
        endpoint(server.url, key_variable="SOME_KEY").ask(ask())
    assert type(caught.value) is kind
    assert "sk-secret" not in str(caught.value)
    assert len(server.seen) == 1


def test_a_key_is_needed_away_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is empty"):
        Endpoint(config("https://example.org/v1"))
    Endpoint(config("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "host/v1", "model": "m"}, "must start with http"),
        ({"url": "https://host/v1"}, "model is not"),
        ({"url": "https://me:secret@host/v1", "model": "m"}, "would end up in logs"),
        ({"url": "https://host/v1", "model": "m", "max_cost": 3.0}, "state the prices"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EndpointConfig(**settings)


def test_never_more_requests_within_a_minute_than_allowed() -> None:
    time, sent = Time(), list[float]()

    def reply(seen: Seen) -> Answer:
        sent.append(time.now)
        return fails(503) if len(sent) % 4 == 0 else says("yes")

    with chat_server(reply) as server:
        asked = endpoint(server.url, time, requests_per_minute=3)
        for _ in range(8):
            asked.ask(ask())
    assert len(sent) > 8
    assert all(later - first >= 60 - 1e-6 for first, later in zip(sent, sent[3:], strict=False))


@pytest.mark.parametrize("settings", [{"requests_per_minute": 3}, {"tokens_per_minute": 335}])
def test_a_process_that_takes_the_place_of_another_keeps_its_rate(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first sends all that a minute allows, and is killed; the clocks of the two begin anew."""
    used = tmp_path / "m.usage"
    with chat_server(lambda seen: says("yes")) as server:  # 110 tokens each
        for count, least in ((3, 0.0), (1, 30.0)):
            time = Time()
            asked = Endpoint(config(server.url, **settings), clock=time.clock, pause=time.pause, used=used)
            for _ in range(count):
                asked.ask(ask())
            assert least <= sum(time.pauses) <= 60.0
        used.write_text(
            '{"requests": 3}\n{"at": "now", "requests": 3}\n{"at": 1.0, "requests": 3, "prompt_tokens": 900}\n'
        )
        time = Time()
        Endpoint(config(server.url, **settings), clock=time.clock, pause=time.pause, used=used).ask(ask())
    assert not time.pauses  # of an earlier version, or long ago


def test_a_call_takes_up_requests_for_a_while_and_the_next_one_goes_on() -> None:
    time, outcomes = Time(), dict[int, Any]()
    with chat_server(lambda seen: says(seen.words())) as server:
        asked = endpoint(server.url, time, requests_per_minute=2, concurrency=1)
        with pytest.raises(RequestsLeft, match="5 of 9 requests have ended"):
            asked.ask_all([ask(str(i)) for i in range(9)], outcomes.__setitem__, start_within_s=70.0)
        assert (sorted(outcomes), time.now) == (
            [0, 1, 2, 3, 4],
            1120.0,
        )  # the fifth was taken up and waited for its turn
        asked.ask_all([ask(str(i)) for i in range(5, 7)], outcomes.__setitem__, start_within_s=70.0)
        with pytest.raises(EndpointError, match="max_requests"):
            endpoint(server.url, max_requests=1, concurrency=1).ask_all(
                [ask()] * 3, outcomes.__setitem__, start_within_s=9
            )


@pytest.mark.parametrize(
    "rates", [{}, {"requests_per_minute": 7}, {"requests_per_minute": 0.5}, {"tokens_per_minute": 99}]
)
def test_requests_that_are_taken_up_end_within_the_endpoint_s_patience(rates: dict[str, Any]) -> None:
    """Each answer takes as long, each pause is as long as allowed, and each request needs every attempt."""
    time, seen_so_far = Time(), list[Seen]()

    def reply(seen: Seen) -> Answer:
        seen_so_far.append(seen)
        time.pause(30.0)
        return says("yes", 90, 9) if len(seen_so_far) % 3 == 0 else fails(503, **{"Retry-After": "40"})

    with chat_server(reply) as server:
        asked = endpoint(server.url, time, attempts=3, timeout_s=30.0, longest_wait_s=40.0, concurrency=1, **rates)
        with pytest.raises(RequestsLeft):
            asked.ask_all([ask(str(i)) for i in range(9)], lambda index, outcome: None, start_within_s=300.0)
    assert len(seen_so_far) % 3 == 0
    assert time.now - 1000.0 <= 300.0 + asked.cfg.patience_s


def test_never_more_tokens_within_a_minute_than_allowed() -> None:
    time, sent = Time(), list[float]()

    def reply(seen: Seen) -> Answer:
        sent.append(time.now)
        return says("yes", 390, 10)

    with chat_server(reply) as server:
        asked = endpoint(server.url, time, tokens_per_minute=1000)
        for _ in range(6):
            asked.ask(ask())
    assert all(later - first >= 60 - 1e-6 for first, later in zip(sent, sent[2:], strict=False))
    assert sent[1] == sent[0]


@pytest.mark.parametrize(
    ("settings", "answers"),
    [
        ({"max_requests": 3}, 3),
        ({"max_tokens_in_all": 350}, 3),
        ({"max_cost": 0.5, "price_in": 1000.0, "price_out": 1000.0}, 4),
    ],
)
def test_a_budget_ends_it_before_it_is_exceeded(settings: dict[str, Any], answers: int) -> None:
    with chat_server(lambda seen: says("yes")) as server:  # 110 tokens each
        asked = endpoint(server.url, **settings)
        got = 0
        with pytest.raises(EndpointError, match=f"budget {next(iter(settings))} = "):
            for got in itertools.count():  # noqa: B007
                asked.ask(ask())
    assert got == asked.usage.answers == len(server.seen) == answers


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": "many"}])
def test_a_budget_binds_where_the_server_does_not_count(usage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """ "Who?" is one token and the longest answer 8: 9 are taken for each."""

    def reply(seen: Seen) -> Answer:
        answer = says("yes")
        return answer._replace(body={**answer.body, "usage": usage})

    with chat_server(reply) as server:
        asked = endpoint(server.url, max_tokens_in_all=30)
        with pytest.raises(EndpointError, match="max_tokens_in_all = 30 is used up \\(27 tokens"):
            for _ in range(9):
                asked.ask(ask())
    assert (asked.usage.answers, asked.usage.estimated_tokens, asked.usage.prompt_tokens) == (3, 27, 0)
    assert capsys.readouterr().out.count("does not count tokens") == 1


class Cut(bytes):
    """A body of which the server sends less than it says."""

    def __len__(self) -> int:
        return 1000


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (Answer(200, b"<html>"), 9),
        (Answer(200, Cut(b'{"choices": [')), 9),
        (fails(503), 0),
        (fails(429), 0),
        (fails(400), 0),
    ],
    ids=["no-json", "cut-off", "503", "429", "400"],
)
def test_a_request_that_was_worked_on_counts_without_its_answer(answer: Answer, tokens: int) -> None:
    with chat_server(lambda seen: answer) as server:
        asked = endpoint(server.url, attempts=1, price_out=1e6)
        with pytest.raises(EndpointError):
            asked.ask(ask())
    used = asked.usage
    assert (used.requests, used.answers, used.estimated_tokens, used.cost) == (1, 0, tokens, 8 * (tokens > 0))


def test_answers_that_come_too_late_use_up_the_budget() -> None:
    release = threading.Event()
    with chat_server(lambda seen: (release.wait(10), says("late"))[1]) as server:
        asked = endpoint(server.url, timeout_s=0.05, attempts=5, max_tokens_in_all=20)
        with pytest.raises(EndpointError, match=r"max_tokens_in_all = 20 is used up \(18 tokens"):
            asked.ask(ask())
        assert (asked.usage.requests, asked.usage.estimated_tokens) == (2, 18)
        release.set()
    gone = endpoint(server.url, attempts=2)
    with pytest.raises(EndpointError, match="refused"):
        gone.ask(ask())
    assert (gone.usage.requests, gone.usage.estimated_tokens) == (2, 0)


def test_a_budget_is_for_all_processes_that_name_one_file(tmp_path: Path) -> None:
    used = tmp_path / "cache" / "m.usage"
    limits = {"max_cost": 0.5, "price_in": 1000.0, "price_out": 1000.0}  # 0.11 each
    with chat_server(lambda seen: says("yes")) as server:
        one, two = (Endpoint(config(server.url, **limits), used=used) for _ in range(2))
        for asked in (one, two, one):
            asked.ask(ask())
        with used.open("a") as file:
            file.write('{"cost": 9')  # cut off by a kill
        Endpoint(config(server.url, **limits), used=used).ask(ask())
        with pytest.raises(EndpointError, match=r"about 0\.4400.*raise the budget"):
            two.ask(ask())
    assert (one.usage.requests, two.usage.requests) == (2, 1)


def test_several_are_asked_at_once_and_all_are_told() -> None:
    barrier = threading.Barrier(3, timeout=10)

    def reply(seen: Seen) -> Answer:
        barrier.wait()
        return fails(400) if seen.words() == "4" else says(seen.words().upper() + "!")

    outcomes: dict[int, Any] = {}
    with chat_server(reply) as server:
        endpoint(server.url, concurrency=3).ask_all([ask(str(i)) for i in range(9)], outcomes.__setitem__)
    assert server.most_in_flight == 3
    assert isinstance(outcomes.pop(4), RequestRefused)
    assert {i: reply.text for i, reply in outcomes.items()} == {i: f"{i}!" for i in range(9) if i != 4}


def test_what_was_answered_before_the_end_has_been_handed_over() -> None:
    outcomes: dict[int, Any] = {}
    with chat_server(lambda seen: fails(401) if seen.words() == "5" else says("yes")) as server:
        asked = Endpoint(config(server.url, concurrency=1))
        with pytest.raises(EndpointError, match="401"):
            asked.ask_all([ask(str(i)) for i in range(9)], outcomes.__setitem__)
        assert sorted(outcomes) == [0, 1, 2, 3, 4]
        assert asked.ask(ask("6")).text == "yes"  # it can be used again


def test_a_pause_ends_when_another_request_ends_everything() -> None:
    both_asked, first_answered = threading.Event(), threading.Event()

    def reply(seen: Seen) -> Answer:
        if seen.words() == "0":
            both_asked.wait(5)
            first_answered.set()
            return fails(503, **{"Retry-After": "50"})
        both_asked.set()
        first_answered.wait(5)
        time.sleep(0.1)
        return fails(401)

    with chat_server(reply) as server, pytest.raises(EndpointError, match="401"):
        Endpoint(config(server.url, concurrency=2)).ask_all([ask("0"), ask("1")], lambda index, outcome: None)
