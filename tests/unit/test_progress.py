"""Progress as text: a plain line now and then without a terminal, a live bar on one."""

import io
import sys

import pytest

from avere_ray.progress import end_line, progress_line, reused, say, stage_progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_without_a_terminal_lines_come_at_most_every_five_seconds_and_at_the_end(capsys):
    clock = Clock()
    with stage_progress("decode", "clips", clock=clock) as tell:
        for done in range(1, 13):
            clock.now += 1.0
            tell(done, 12)
    assert capsys.readouterr().out.splitlines() == [
        "decode: 5/12 clips, 1.0/s, 7.0 s left",
        "decode: 10/12 clips, 1.0/s, 2.0 s left",
        "decode: 12 clips in 12 s, 1.0/s",
    ]


def test_a_stage_that_fails_says_how_far_it_came(capsys):
    clock = Clock()
    with pytest.raises(KeyboardInterrupt), stage_progress("train", "steps", clock=clock) as tell:
        clock.now += 2.0
        tell(3, 8)
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "train: stopped at 3/8 steps after 2.0 s\n"


def test_a_total_that_is_unknown_is_left_out():
    assert progress_line("rollouts", "responses", 30, None, 10.0) == "rollouts: 30 responses, 3.0/s"
    assert progress_line("rollouts", "responses", 0, 90, 10.0) == "rollouts: 0/90 responses"


@pytest.mark.parametrize(
    ("done", "elapsed", "text"),
    [(1, 100.0, "0.6/min"), (2, 100.0, "1.2/min"), (200, 100.0, "2.0/s"), (5, 200.0, "3 min 20 s")],
)
def test_rates_and_times_are_in_units_a_person_reads(done, elapsed, text):
    assert text in end_line("x", "clips", done, None, elapsed, complete=True)


def test_reused_stages_are_named(capsys):
    reused("decode", 240)
    reused("train")
    assert capsys.readouterr().out.splitlines() == [
        "decode: finished earlier, reused (240 clips)",
        "train: finished earlier, reused",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_last_line_stays_and_other_lines_keep_their_brackets(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with stage_progress("decode", "clips") as tell:
        tell(3, 12)
        say("[a line] of its own")
        tell(12, 12)
    text = terminal.getvalue()
    assert "[a line] of its own" in text
    assert "decode: 12 clips in" in text
    assert "\x1b[" in text
