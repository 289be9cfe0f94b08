"""The page in headless Chromium against a small real server: what a person does, sees, and is told when it fails."""

import asyncio
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser, open_browser
from pageserver import ANSWERS, BASE, TUNED, Stand, refusal, serving
from starlette.applications import Starlette

from actors.page import SECURITY_HEADERS, page_routes
from avere_ray.synthetic.samples import SampleClip, sample_clips

STATIC = Path(page_routes.__code__.co_filename).parent / "static"
MODELS_SHOWN = "document.querySelectorAll('#models input').length === 2"
SAMPLE = "#samples li:nth-child(2) button"
CAN_ASK = "!document.querySelector('#send').disabled"
ALL_DRAWN = "document.querySelectorAll('.grounding tr').length === 10"
CHAT = "/v1/chat/completions"
FIRST_ERROR = "#answers .error:not([hidden])"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stand, str]]:
    stand = Stand(tmp_path_factory.mktemp("server"))
    with serving(stand) as url:
        yield stand, url


@pytest.fixture
def stand(place: tuple[Stand, str], browser: Browser) -> Iterator[Stand]:
    """The server as it is at first, and the page freshly opened."""
    found, url = place
    found.__init__(found.folder)  # type: ignore[misc]
    browser.look(width=1280, height=900)
    browser.open(f"{url}/")
    browser.wait(f"{MODELS_SHOWN} && document.querySelectorAll('#samples button').length === 4")
    yield found
    browser.run("sessionStorage.clear()")  # the token


@pytest.fixture(scope="module")
def grief() -> SampleClip:
    return sample_clips(["grief"])[0]


def choose_sample(browser: Browser) -> None:
    browser.click(SAMPLE)
    browser.wait(CAN_ASK)


def test_a_sample_is_asked_about_and_two_answers_stream_side_by_side(stand: Stand, browser: Browser) -> None:
    assert "Choose a clip first" in browser.text("#ask")
    choose_sample(browser)
    browser.wait("document.querySelector('#player').duration > 1.5 && !document.querySelector('#player').error")
    browser.click("#send")
    browser.wait(ALL_DRAWN)
    chats = [a for a in stand.asked if "body" in a]
    assert {c["model"] for c in chats} == {BASE, TUNED} and len(stand.asked) == 4
    media = httpx.get(f"{browser.run('location.origin')}/page/samples/grief.mp4").content
    assert media[4:8] == b"ftyp" and all(a["media"] == media for a in stand.asked)
    assert all(c["question"] == "How does the person feel, and how can you tell?" for c in chats)
    body = chats[0]["body"]
    assert (body["stream"], body["temperature"]) == (True, 0)
    assert body["mm_processor_kwargs"] == {"use_audio_in_video": True}
    left, right = (browser.run(f"document.querySelectorAll('.answer')[{i}].innerText") for i in (0, 1))
    assert ANSWERS[BASE] in left and ANSWERS[TUNED] in right
    assert "they agree" in left and "It names happiness" in left
    assert browser.complaints == []


def test_cues_are_marked_by_medium_and_grounding_has_bars(stand: Stand, browser: Browser) -> None:
    choose_sample(browser)
    browser.click("#send")
    browser.wait(ALL_DRAWN)
    marks = browser.run(
        "[...document.querySelectorAll('.answer:first-child mark')].map(m => [m.textContent, m.className])"
    )
    assert marks == [["wide smile", "cue video"], ["clapping hands", "cue video"], ["blue shirt", "cue video"],
                     ["laughter", "cue audio"], ["rain", "cue audio"]]  # fmt: skip
    assert browser.run("document.querySelector('.answer:last-child mark.away').textContent") == "blue shirt"
    assert browser.run("document.querySelector('.doubted').closest('tr').innerText").split("\t")[1] == "clapping hands"
    bars = browser.run(
        "[...document.querySelectorAll('.answer')].map(a => [...a.querySelectorAll('.grounding tr')]"
        ".map(r => [r.cells[0].innerText, r.cells[2].innerText,"
        " parseFloat(r.querySelector('i').style.width)]))"
    )
    assert bars[0][0] == ["picture removed", "6.0", pytest.approx(100 * 6 / 9.5, abs=0.1)]
    assert [row[1] for row in bars[0]] == ["6.0", "6.0", "0.0", "0.0", "9.5"]
    assert [row[1] for row in bars[1]] == ["6.0", "6.0", "4.0", "4.0", "9.5"]
    assert "swapped" in bars[0][3][0] and bars[0][4][2] == 100


def test_own_clips_are_picked_or_dropped(stand: Stand, browser: Browser, grief: SampleClip, tmp_path: Path) -> None:
    (path := tmp_path / "mine.mp4").write_bytes(grief.media)
    (text := tmp_path / "notes.txt").write_text("no clip")
    (empty := tmp_path / "empty.mp4").write_bytes(b"")
    for file, words in ((text, "notes.txt is no video"), (empty, "empty.mp4 is empty")):
        browser.pick_files("#file", [file])
        browser.wait("!document.querySelector('#clip-error').hidden")
        assert words in browser.text("#clip-error")
        browser.run("document.querySelector('#clip-error').hidden = true")
    assert not browser.run(CAN_ASK)
    for give in (browser.pick_files, browser.drop_files):
        give("#file" if give == browser.pick_files else "#drop", [path])
        browser.wait(CAN_ASK)
        assert "mine.mp4, 0.0" in browser.text("#drop") and browser.run("!document.querySelector('#player').hidden")
        browser.run("document.querySelector('#explain').checked = false")
        browser.click("#send")
        browser.wait(f"document.querySelectorAll('.said[aria-busy=false]').length === 2 && {CAN_ASK}")
        assert [a["media"] for a in stand.asked] == [grief.media, grief.media]
        stand.asked.clear()
        browser.run("document.querySelector('#answers').replaceChildren()")
    assert browser.complaints == []


def test_an_answer_is_shown_as_it_comes_and_can_be_stopped(stand: Stand, browser: Browser) -> None:
    stand.pause_s = 0.05
    browser.click("#models li:last-child input")
    choose_sample(browser)
    browser.click("#send")
    browser.wait(
        "document.querySelector('.said')?.textContent.startsWith('🙂 The')"
        " && document.querySelector('.said').ariaBusy === 'true'"
    )
    shown = browser.text(".said")
    assert ANSWERS[BASE].startswith(shown) and len(shown) < len(ANSWERS[BASE])
    browser.click("#stop")
    browser.wait("document.querySelector('.status').textContent === 'Stopped.'")
    browser.wait(CAN_ASK)
    assert browser.run("document.querySelector('#stop').hidden") and browser.text(FIRST_ERROR) == ""
    browser.run("new Promise(done => setTimeout(done, 100))")
    assert stand.ended == [BASE]  # the server was told


REFUSALS: list[tuple[str, int, dict[str, str], str]] = [
    (CHAT, 413, {}, "too large for this server"),
    (CHAT, 422, {}, "it has no sound"),
    (CHAT, 422, {"code": "no_audio_stream"}, "This clip has no sound, and the question is about picture and sound"),
    (CHAT, 429, {"Retry_After": "9"}, "Ask again in 9 s."),
    (CHAT, 503, {}, "The server is busy. Ask again later."),
    (CHAT, 500, {}, "it has no sound"),
    (CHAT, 200, {}, "did not stream its answer"),
    ("/v1/emotion", 503, {"Retry_After": "2"}, "Ask again in 2 s."),
]


def test_refusals_are_worded_and_asking_again_cures_them(stand: Stand, browser: Browser) -> None:
    choose_sample(browser)
    for path, status, headers, words in REFUSALS:
        no = functools.partial(refusal, status, "it has no sound", **headers)
        stand.refuse = functools.partial(lambda wanted, make, asked: make() if asked == wanted else None, path, no)
        browser.click("#send")
        browser.wait("document.querySelectorAll('#answers .error:not([hidden])').length === 2")
        assert words in browser.text(FIRST_ERROR)
        browser.wait(CAN_ASK)
        browser.run("document.querySelector('#answers').replaceChildren()")
    stand.refuse = lambda asked: None
    browser.click("#send")
    browser.wait(ALL_DRAWN)


def test_an_answer_that_breaks_off_is_said_to(stand: Stand, browser: Browser) -> None:
    stand.break_off = True
    choose_sample(browser)
    browser.click("#send")
    browser.wait("document.querySelectorAll('#answers .error:not([hidden])').length === 2")
    assert "broke off before its end" in browser.text(FIRST_ERROR)
    assert browser.text(".said") == ANSWERS[BASE]  # what came is kept


def test_an_answer_that_is_cut_off_is_said_to_be(stand: Stand, browser: Browser) -> None:
    shown = "[...document.querySelectorAll('.cut')].map(e => e.checkVisibility() ? e.innerText : '')"
    choose_sample(browser)
    for reason, words in (("length", "Cut off here"), ("stop", "")):
        stand.reason = reason
        browser.click("#send")
        browser.wait(ALL_DRAWN)
        found = browser.run(shown)
        assert len(found) == 2 and all(text.startswith(words) and bool(text) == bool(words) for text in found)
        assert browser.text(".said") == ANSWERS[BASE]
        browser.run("document.querySelector('#answers').replaceChildren()")


def test_what_is_heard_of_the_page_by_those_who_do_not_see_it(stand: Stand, browser: Browser) -> None:
    stand.pause_s = 0.05
    choose_sample(browser)
    assert browser.run("document.querySelector('#player').ariaLabel") == "The chosen clip"
    browser.click("#send")
    browser.wait("document.querySelector('.said')?.textContent")
    live = "(e => [e.ariaLive, e.ariaBusy])(document.querySelector('.said'))"
    assert browser.run(live) == ["polite", "true"]  # read out when it is whole
    browser.wait(ALL_DRAWN)
    assert browser.run(live) == ["off", "false"]  # and not again when its cues are marked


def test_a_server_without_the_analysis_still_answers(stand: Stand, browser: Browser) -> None:
    stand.refuse = lambda asked: refusal(404, "Not Found") if asked == "/v1/emotion" else None
    choose_sample(browser)
    browser.click("#send")
    browser.wait("document.querySelector('.status')?.textContent.includes('does not tell')")
    assert browser.text(FIRST_ERROR) == ""


def test_a_server_that_is_gone(tmp_path: Path, browser: Browser) -> None:
    gone = Stand(tmp_path)
    with serving(gone) as url:
        browser.open(f"{url}/")
        browser.wait(f"{MODELS_SHOWN} && document.querySelectorAll('#samples button').length === 4")
        choose_sample(browser)
    browser.click("#send")
    browser.wait("document.querySelectorAll('#answers .error:not([hidden])').length === 2")
    assert "The server does not answer. Is it still running?" in browser.text(FIRST_ERROR)


def test_a_token_is_asked_for_kept_in_the_tab_and_sent(stand: Stand, browser: Browser) -> None:
    stand.token = "right"
    browser.open(browser.run("location.href"))
    browser.wait("!document.querySelector('#token-form').hidden")
    assert browser.run("document.activeElement.id") == "token"
    assert "The server asks for a token." in browser.text("#token-form")
    browser.type("wrong")
    browser.press("Enter")
    browser.wait("document.querySelector('#token-words').textContent.includes('does not accept this token')")
    browser.run("document.querySelector('#token').select()")
    browser.type("right")
    browser.press("Enter")
    browser.wait(f"{MODELS_SHOWN} && document.querySelector('#token-form').hidden")
    browser.open(browser.run("location.href"))
    browser.wait(f"{MODELS_SHOWN} && document.querySelectorAll('#samples button').length === 4")
    choose_sample(browser)
    browser.click("#send")
    browser.wait(ALL_DRAWN)
    stand.token = "changed"
    browser.click("#send")
    browser.wait("!document.querySelector('#token-form').hidden")
    assert "does not accept this token" in browser.text(FIRST_ERROR)


def test_models_that_do_not_come_can_be_asked_for_again(stand: Stand, browser: Browser) -> None:
    stand.refuse = lambda asked: refusal(503, "starting") if asked == "/v1/models" else None
    browser.open(browser.run("location.href"))
    browser.wait("!document.querySelector('#retry').hidden")
    assert "The server is busy" in browser.text("#ask-error")
    stand.refuse = lambda asked: None
    browser.click("#retry")
    browser.wait(f"{MODELS_SHOWN} && document.querySelector('#retry').hidden")
    assert browser.text("#ask-error") == ""


def test_the_keyboard_is_enough(stand: Stand, browser: Browser) -> None:
    browser.run("document.activeElement.blur()")
    order = []
    for _ in range(20):
        browser.press("Tab")
        order.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
        if order[-1] == "In tears, with flute music":
            assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
            browser.press(" ")
            browser.wait(CAN_ASK)
        if order[-1] == "question":
            break
    assert order[0] == "file" and "In tears, with flute music" in order
    browser.run("document.querySelector('#question').select()")
    browser.type("Are the tears real?")
    browser.press("Enter", control=True)
    browser.wait(ALL_DRAWN)
    assert stand.asked[0]["question"] == "Are the tears real?"


def test_at_most_two_models_are_asked(stand: Stand, browser: Browser) -> None:
    boxes = "[...document.querySelectorAll('#models input')].map(b => [b.checked, b.disabled])"
    assert browser.run(boxes) == [[True, False], [True, False]]
    choose_sample(browser)
    for child in ("first", "last"):
        browser.click(f"#models li:{child}-child input")
    assert not browser.run(CAN_ASK) and "Choose who answers first" in browser.text("#ask")


def test_words_of_a_model_are_never_markup(stand: Stand, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, BASE, "<img src=x onerror=alert(1)> I see <b>tears</b> &amp; more.")
    choose_sample(browser)
    browser.click("#send")
    browser.wait(ALL_DRAWN)
    assert browser.text(".said") == ANSWERS[BASE]
    assert browser.run("document.querySelectorAll('.said img, .said b').length") == 0
    assert browser.run("document.querySelector('.said mark').textContent") == "tears"


CONTRAST = """(() => {
  const paint = document.createElement('canvas').getContext('2d');
  const rgb = c => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = c; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c; } return [255, 255, 255]; };
  const words = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.disabled &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return words.map(e => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className || e.tagName]; }).sort((x, y) => x[0] - y[0]);
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "phone"), [(1280, False), (360, True)])
def test_it_is_readable_light_and_dark_on_a_desk_and_on_a_phone(
    dark: bool, width: int, phone: bool, stand: Stand, browser: Browser, tmp_path: Path
) -> None:
    browser.look(width=width, height=780, dark=dark, phone=phone)
    choose_sample(browser)
    browser.click("#send")
    browser.wait(ALL_DRAWN)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")  # nothing to be scrolled sideways
    contrasts = browser.run(CONTRAST)
    assert len(contrasts) > 60 and contrasts[0][0] >= 4.5, contrasts[:5]  # WCAG 2.2, level AA
    assert max(c[0] for c in contrasts) > 10
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 23, 26)" if dark else "rgb(244, 244, 246)")
    sides = browser.run("[...document.querySelectorAll('.answer')].map(a => a.getBoundingClientRect().x)")
    assert (sides[0] == sides[1]) == phone  # one below the other on a phone, else side by side
    small = browser.run("[...document.querySelectorAll('button')].filter(b => b.checkVisibility())"
                        ".filter(b => b.getBoundingClientRect().height < 40).length")  # fmt: skip
    assert small == 0 and browser.complaints == []


# Without a browser ----------------------------------------------------------------------------------------------


def get(path: str, samples: list[SampleClip] | None = None, **headers: str) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=page_routes(samples)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.get(path, headers=headers)

    return asyncio.run(once())


SHORT = SampleClip(name="one", title="One", questions=("What?",), emotion="", media=b"mp4")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/samples/one.mp4", "video/mp4"),
    ],
)
def test_files_have_their_type_a_policy_and_a_tag(path: str, kind: str) -> None:
    reply = get(path, [SHORT])
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    assert all(reply.headers[name] == value for name, value in SECURITY_HEADERS.items())
    again = get(path, [SHORT], **{"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    files: dict[str, str] = {p.name: p.read_text(encoding="utf-8") for p in STATIC.iterdir()}
    assert set(files) == {"index.html", "page.css", "page.js"}
    assert not [name for name, text in files.items() if re.search(r"https?://|@import|url\(", text)]
    html = files["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", files["page.js"])
    assert sum(len(text) for text in files.values()) < 60_000


def test_samples_are_listed_and_others_are_not_there() -> None:
    listed: list[dict[str, Any]] = get("/page/samples.json", [SHORT]).json()
    assert listed == [{"name": "one", "title": "One", "questions": ["What?"]}]
    for name in ("two", "..%2f..%2fserver"):
        reply = get(f"/page/samples/{name}.mp4", [SHORT])
        assert reply.status_code == 404
    assert "there are one" in get("/page/samples/two.mp4", [SHORT]).json()["error"]["message"]
