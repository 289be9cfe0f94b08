"""The wrapper around every verb: arguments in, exit code and one clear last line out."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avere_ray.config import RunConfig
from avere_ray.errors import AvereError, ClusterError, ConfigError, DropBudgetExceeded, InputError, StorageError
from jobs import main as entry
from jobs.command import INTERRUPTED, run_command, split_arguments

PROG = "avere-ray decode"


def last_line(text: str) -> str:
    return text.rstrip("\n").splitlines()[-1]


@pytest.fixture(autouse=True)
def restore_signals() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_config_reaches_the_work(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\ntrain: {epochs: 2}\n", encoding="utf-8")
    seen: list[RunConfig] = []
    assert run_command(PROG, "Decodes.", seen.append, ["--config", str(file), "--rounds=5"]) == 0
    assert (seen[0].seed, seen[0].train.epochs, seen[0].rounds) == (3, 2, 5)


@pytest.mark.parametrize(
    ("argv", "config", "overrides"),
    [
        ([], None, []),
        (["--config", "a.yaml", "--seed=1"], Path("a.yaml"), ["--seed=1"]),
        (["--seed=1", "--config=a.yaml"], Path("a.yaml"), ["--seed=1"]),
    ],
)
def test_arguments_are_split(argv: list[str], config: Path | None, overrides: list[str]) -> None:
    assert split_arguments(argv) == (config, overrides)


@pytest.mark.parametrize("argv", [["--config"], ["--config="], ["--config", "--seed=1"], ["--config=a", "--config=b"]])
def test_a_config_option_without_one_file_is_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match="--config"):
        split_arguments(argv)


def test_help_shows_what_it_does_and_every_setting_without_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(PROG, "Decodes clips.", lambda cfg: pytest.fail("must not run"), ["--config", "x", "-h"]) == 0
    output = capsys.readouterr().out
    for words in (f"usage: {PROG} [--config FILE]", "Decodes clips.", "--config FILE", "--train.learning_rate"):
        assert words in output


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("seed = -1 is below 0"),
        InputError("clip folder a/b does not exist"),
        DropBudgetExceeded("9 of 10 dropped"),
        StorageError("cannot write x: the disk is full"),
        ClusterError("ray://nowhere does not answer"),
    ],
)
def test_an_error_is_the_last_line_and_the_exit_code(error: AvereError, capsys: pytest.CaptureFixture[str]) -> None:
    def work(cfg: RunConfig) -> None:
        print("noise", file=sys.stderr)
        raise error

    assert run_command(PROG, None, work, []) == error.exit_code
    assert last_line(capsys.readouterr().err) == f"{PROG}: {error}"


def test_a_message_of_several_lines_becomes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("train: [", encoding="utf-8")
    assert run_command(PROG, None, lambda cfg: None, ["--config", str(file)]) == 2
    assert last_line(capsys.readouterr().err).startswith(f"{PROG}: {file} is not valid YAML")


def test_an_error_wrapped_by_a_worker_is_shown_as_it_was_raised(capsys: pytest.CaptureFixture[str]) -> None:
    class WrappedError(InputError):
        cause = InputError("clip folder is empty")

    def work(cfg: RunConfig) -> None:
        raise WrappedError("remote traceback\n  File ...\nclip folder is empty")

    assert run_command(PROG, None, work, []) == 2
    assert capsys.readouterr().err == f"{PROG}: clip folder is empty\n"


def test_the_traceback_is_shown_on_request_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(cfg: RunConfig) -> None:
        raise InputError("no clips")

    run_command(PROG, None, work, [])
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("AVERE_RAY_TRACEBACK", "1")
    run_command(PROG, None, work, [])
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert last_line(shown) == f"{PROG}: no clips"


def test_a_bug_keeps_its_traceback() -> None:
    def work(cfg: RunConfig) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run_command(PROG, None, work, [])


def test_the_work_may_set_the_exit_code() -> None:
    assert run_command(PROG, None, lambda cfg: 1, []) == 1
    assert run_command(PROG, None, lambda cfg: True, []) == 0


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def work(cfg: RunConfig) -> None:
        raise KeyboardInterrupt

    assert run_command(PROG, None, work, []) == 130
    assert last_line(capsys.readouterr().err) == f"{PROG}: {INTERRUPTED}"


def test_ray_s_way_of_ending_on_sigterm_counts_as_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(PROG, None, lambda cfg: sys.exit(signal.SIGTERM), []) == 143
    assert INTERRUPTED in capsys.readouterr().err


_WAITING_JOB = f"""
import sys, time
from jobs.command import run_command
def work(cfg):
    try:
        print("started", flush=True)
        time.sleep(40)
    finally:
        print("closed", flush=True)
sys.exit(run_command({PROG!r}, None, work, []))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_what_is_open_and_leaves_no_traceback(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING_JOB],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the caller may ignore it
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "started\n"
        time.sleep(0.05)
        os.kill(job.pid, number)
        output, errors = job.communicate(timeout=20)
    assert (job.returncode, output, errors) == (code, "closed\n", f"{PROG}: {INTERRUPTED}\n")


def test_programs_beside_the_interpreter_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    seen: list[str] = []
    run_command(PROG, None, lambda cfg: seen.append(os.environ["PATH"]), [])
    assert seen[0].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]


def test_an_unknown_verb_is_refused_with_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["trian"]) == 2
    message = capsys.readouterr().err
    assert "'trian'" in message
    assert "did you mean 'train'" in message


def test_no_verb_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main([]) == 2
    assert "build-preferences" in capsys.readouterr().out


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2
