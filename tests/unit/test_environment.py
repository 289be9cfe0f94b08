"""Set-up: what is missing is named with its remedy; torchvision is repaired only where it has to be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avere_ray import environment
from avere_ray.environment import Finding, as_typed, check_prerequisites, compiler_finding, hook_files, tools_first

ROOT = Path(__file__).parents[2]


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_check_runs_before_anything_is_installed() -> None:
    code = "import sys; from avere_ray import environment; assert environment.main(['check']) in (0, 1); print('ran')"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == "ran\n", done.stderr


def test_a_complete_machine_has_no_failure() -> None:
    assert [finding for finding in check_prerequisites() if finding.level == "fail"] == []


def test_each_missing_program_is_named_with_its_remedy(tmp_path: Path) -> None:
    failures = [f for f in check_prerequisites({"PATH": str(tmp_path)}) if f.level == "fail"]
    assert [f.what.split()[0] for f in failures] == ["make", "git", "C++"]
    assert all("apt install" in f.remedy for f in failures)


def test_another_compiler_is_offered(tmp_path: Path) -> None:
    program(tmp_path, "g++", "exit 0")
    assert compiler_finding({"PATH": str(tmp_path)}).remedy.startswith("set CXX=g++")
    assert compiler_finding({"PATH": str(tmp_path), "CXX": "g++"}).level == "ok"


def test_a_compiler_without_its_headers_is_refused(tmp_path: Path) -> None:
    program(tmp_path, "c++", "echo 'fatal error: vector: No such file or directory' >&2; exit 1")
    finding = compiler_finding({"PATH": str(tmp_path)})
    assert finding.level == "fail"
    assert "fatal error: vector" in finding.what


@pytest.mark.parametrize(("version", "level"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((4, 0), "ok")])
def test_an_old_python_is_refused(version: tuple[int, int], level: str) -> None:
    finding = environment._python_finding(version)
    assert finding.level == level
    assert bool(finding.remedy) == (level == "fail")


def test_a_failed_step_stops_the_next(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "check_prerequisites", lambda: [Finding("fail", "no make", "install it")])
    monkeypatch.setattr(environment, "repair", lambda: pytest.fail("must not repair"))
    assert environment.main(["check", "repair"]) == 1
    assert capsys.readouterr().err == "check: no make: install it\n"


def test_an_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert environment.main(["mend"]) == 2
    assert "check|repair" in capsys.readouterr().err


def test_matching_wheels_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "torchvision_loads", lambda: True)
    monkeypatch.setattr(environment, "_site_packages", lambda: tmp_path)
    monkeypatch.setattr(environment, "_run", lambda *a: pytest.fail("must not uninstall"))
    assert environment.repair().what == "torchvision matches torch; nothing to repair"
    assert list(tmp_path.iterdir()) == []


def test_repair_removes_what_cannot_load_and_is_done_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed, calls = {"torchaudio"}, []

    def run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        calls.append(command[1:])
        installed.clear()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(environment, "torchvision_loads", lambda: False)
    monkeypatch.setattr(environment, "_site_packages", lambda: tmp_path)
    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "removed torchaudio" in environment.repair().what
    assert {path: path.read_text() for path in tmp_path.iterdir()} == hook_files(tmp_path)
    assert "repaired before" in environment.repair().what
    assert calls == [["-m", "pip", "uninstall", "-q", "-y", "torchaudio"]]


def test_repair_refuses_a_python_that_is_not_the_project_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "torchvision_loads", lambda: False)
    monkeypatch.setattr(environment, "_site_packages", lambda: tmp_path)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert environment.repair().level == "fail"
    assert list(tmp_path.iterdir()) == []


# A stand-in for torch and torchvision: the first records what is declared, the second shows it was there in time.
_FAKE_TORCH = """
import types
declared = []
version = types.SimpleNamespace(cuda={cuda!r}, hip=None)
library = types.SimpleNamespace(define=lambda name, schema: declared.append(name))
def _load(path):
    if {broken!r}:
        raise OSError("libcudart.so: cannot open shared object file")
ops = types.SimpleNamespace(load_library=_load)
"""
_FAKE_TORCHVISION = "import torch\nseen = list(torch.declared)\n"


@pytest.mark.parametrize(
    ("cuda", "broken", "expected"),
    [
        (None, True, "['torchvision::nms', 'torchvision::qnms']"),
        (None, False, "[]"),
        ("13.0", True, "[]"),
    ],
)
def test_the_hook_declares_operators_only_where_they_are_missing(
    tmp_path: Path, cuda: str | None, broken: bool, expected: str
) -> None:
    for path, text in hook_files(tmp_path).items():
        path.write_text(text, encoding="utf-8")
    (tmp_path / "torch.py").write_text(_FAKE_TORCH.format(cuda=cuda, broken=broken), encoding="utf-8")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(_FAKE_TORCHVISION, encoding="utf-8")
    (tmp_path / "torchvision" / "_C.so").touch()
    code = (
        f"import site, sys; sys.path.insert(0, {str(tmp_path)!r}); site.addsitedir({str(tmp_path)!r})\n"
        "import importlib.util; importlib.util.find_spec('torchvision'); assert 'torch' not in sys.modules\n"
        "import torchvision; print(torchvision.seen)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )
    assert done.stdout.strip() == expected, done.stderr


def test_torchvision_transforms_work_in_this_environment() -> None:
    """This process is a child of the environment as any other: nothing was done for it but starting its Python."""
    import torch
    from torchvision.transforms import v2

    assert v2.Resize((2, 2))(torch.ones(3, 4, 4)).sum() == 12.0


def test_own_programs_come_first_on_path_and_only_once() -> None:
    folder = str(Path(sys.executable).parent)
    environ = tools_first({"PATH": os.pathsep.join(["/bin", folder]), "HOME": "/x"})
    assert environ == {"PATH": os.pathsep.join([folder, "/bin"]), "HOME": "/x"}


def test_a_program_is_named_as_the_users_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / ".venv" / "bin", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "tool").write_text("#!/bin/sh\n")
        (folder / "tool").chmod(0o755)
    python = str(own / "python")
    assert as_typed("tool", python, str(own)) == "tool"
    assert as_typed("tool", python, str(other)) == str(own / "tool")
    assert as_typed("absent", python, str(other)) == "absent"
    monkeypatch.chdir(tmp_path)
    assert as_typed("tool", python, "/nowhere") == ".venv/bin/tool"
