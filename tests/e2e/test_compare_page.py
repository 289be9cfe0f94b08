"""The comparison page as a person sees it: headless Chromium draws it, light and dark, with nothing but the file."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from clipmaker import Recipe, write_clip
from runfolders import write_run

from avere_ray.comparison.page import to_html
from avere_ray.comparison.report import make_report
from avere_ray.comparison.results import read_run_folder

WIDTH, HEIGHT = 1200, 2400
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")

    def clip(path: Path, number: int) -> None:
        if number < 3:  # the others have no picture
            write_clip(path, Recipe(paint=lambda i, h, w: np.full((h, w, 3), (250, 20, 200), np.uint8)))

    says = {"before": lambda i, task, gold: "(A) Yes",
            "round=0": lambda i, task, gold: f"({gold})" if "audio" in task else "(A) Yes"}  # fmt: skip
    run = write_run(folder / "run", says, clips=12, name="seen", write_clip=clip)
    lost = {"n": 12, "accuracy": 80.0, "accuracy_changed": 35.0, "shift_nats": None,
            "drop": {"value": 45.0, "low": 20.0, "high": 70.0, "n": 12}}  # fmt: skip
    report = {"audio": {"muted": {"all": lost}}}
    (run / "evals" / "round=0" / "emorealm_grounding.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "compare.html").write_text(to_html(make_report([(read_run_folder(run), None)])), encoding="utf-8")
    return folder / "compare.html"


def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH; Debian's package is `chromium`")
    return found


def chromium(page: Path, *arguments: str) -> bytes:
    """What Chromium prints for a page; offline, with a profile of its own."""
    command = [browser(), "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
               "--force-device-scale-factor=1",
               f"--user-data-dir={page.parent / 'profile'}", f"--window-size={WIDTH},{HEIGHT}",
               "--host-resolver-rules=MAP * ~NOTFOUND", *arguments]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to start as root with it
    done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout


def pixels(page: Path, *arguments: str) -> np.ndarray:
    """A screenshot, uint8 RGB [H, W, 3]."""
    shot = page.with_name(f"shot{len(arguments)}.png")
    chromium(page, f"--screenshot={shot}", *arguments)
    with av.open(str(shot)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def share_of(shot: np.ndarray, color: str, tolerance: int = 6) -> float:
    """Share of pixels within `tolerance` of a colour "#rrggbb"."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(shot.astype(int) - wanted).max(-1) <= tolerance).mean())


@pytest.mark.timeout(300)
def test_the_page_is_drawn_light_and_dark(page: Path) -> None:
    light, dark = pixels(page), pixels(page, DARK)
    assert light.shape == dark.shape == (HEIGHT, WIDTH, 3)
    assert share_of(light, "#ffffff") > 0.7 and share_of(dark, "#16171a") > 0.7
    for shot, series in ((light, ("#0072b2", "#d55e00")), (dark, ("#56b4e9", "#ff9d5c"))):
        for color in series:  # dots, intervals, radar and curves of both evaluations
            assert share_of(shot, color) * WIDTH * HEIGHT > 100, color
    assert share_of(light, "#fa14c8", 40) * WIDTH * HEIGHT > 0.95 * 84 * 84  # a clip's own picture


@pytest.mark.timeout(300)
def test_what_is_laid_out_holds_every_part(page: Path) -> None:
    text = chromium(page, "--dump-dom").decode()
    for part in (
        "Grounding: what is lost",
        "+45.0 [+20.0, +70.0]",
        "seen, before",
        "seen, round 0",
        "6 questions fixed",
        "mcnemar_exact",
        "Settings",
        "Notes",
        "loss",
    ):
        assert (part in text) == (part != "Settings"), part  # one run has no settings that differ
    assert text.count("<svg") >= 5 and text.count("<img") >= 1
