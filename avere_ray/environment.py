"""What the machine must offer, and what set-up adds: `python -m avere_ray.environment check|repair`.

check   Python, compiler, make and git are there; runs before anything is installed, so only the standard library is
        imported at the top, and no syntax newer than Python 3.8 is used.
repair  With a CPU-only torch, the torchvision wheel on the common index is linked against CUDA: its own library cannot
        load, and importing it fails with "operator torchvision::nms does not exist"; torchaudio and torchcodec break
        `import transformers` in the same way. The two optional packages are uninstalled, and an import hook in the
        virtual environment declares the two missing operators, in every interpreter. Matching wheels are left alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MIN_PYTHON = (3, 11)
UNLOADABLE = ("torchaudio", "torchcodec")
HOOK_NAME = "_avere_ray_torchvision"

SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that share a product of matrices sleep while they wait for each other. Left alone they spin, and where one of
them has no core, a product of microseconds takes milliseconds (BENCHMARKS.md). To be set before torch is imported."""
_SHELL_PATH = os.environ.get("PATH", os.defpath)  # before anything here puts its own programs in front
_COMPILE_TIMEOUT_S = 60
_REPAIR_TIMEOUT_S = 300

_HOOK = '''\
"""Declares the operators that torchvision expects, where its own library cannot load. Written by avere_ray set-up.

Started by a .pth file in every interpreter of this environment, so nothing is imported before torchvision is.
"""

import sys

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class TorchvisionFinder:
    """Finds torchvision as usual, and declares its operators just before it runs."""

    declared = False

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def declare_then_run(module):
            self.declare(spec.submodule_search_locations)
            run(module)

        spec.loader.exec_module = declare_then_run
        return spec

    def declare(self, folders):
        import glob
        import os

        import torch

        if self.declared or torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None:
            return
        for library in [p for folder in folders or () for p in glob.glob(os.path.join(folder, "_C*"))]:
            try:
                torch.ops.load_library(library)
                return
            except (OSError, ImportError):
                continue
        torch.library.define("torchvision::nms", SCHEMA)
        torch.library.define("torchvision::qnms", SCHEMA)
        self.declared = True


if not any(type(finder).__name__ == "TorchvisionFinder" for finder in sys.meta_path):
    sys.meta_path.insert(0, TorchvisionFinder())
'''

# Runs in a process of its own: a failed load leaves half-registered operators behind.
_TORCHVISION_CHECK = """\
import glob, importlib.util, os, sys
import torch
spec = importlib.util.find_spec("torchvision")
if spec is None or torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None:
    sys.exit(0)
for library in glob.glob(os.path.join(os.path.dirname(spec.origin), "_C*")):
    try:
        torch.ops.load_library(library)
    except (OSError, ImportError):
        sys.exit(3)
"""


class Finding(NamedTuple):
    """One thing that was checked."""

    level: str
    """"ok", "warn" or "fail"; with "fail" the run would not work."""
    what: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty when all is well."""


def check_prerequisites(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """What must be there before anything can be installed; one finding each."""
    return [
        _python_finding(sys.version_info[:2]),
        _venv_finding(),
        _headers_finding(),
        _program_finding("make", environ),
        _program_finding("git", environ),
        compiler_finding(environ),
    ]


def compiler_finding(environ: Mapping[str, str] = os.environ) -> Finding:
    """Whether a C++ compiler is there and can compile against the standard library."""
    name = environ.get("CXX", "c++")
    path = shutil.which(name, path=environ.get("PATH"))
    if path is None:
        other = next((n for n in ("g++", "clang++") if shutil.which(n, path=environ.get("PATH"))), None)
        remedy = f"set CXX={other}" if other else "install one (Debian, Ubuntu: apt install g++; Fedora: gcc-c++)"
        return Finding("fail", f"C++ compiler {name!r} is not on PATH", f"{remedy}; torch compiles with it")
    reason = _compile_problem(path)
    if reason:
        return Finding("fail", f"C++ compiler {path} cannot compile: {reason}", "install it anew with its headers")
    return Finding("ok", f"C++ compiler {path}")


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of ours, and of what it starts: unless it says otherwise, `SLEEPING_THREADS` and no
    warnings of transformers about models that lack parts; this interpreter's own programs first."""
    return {**SLEEPING_THREADS, "TRANSFORMERS_VERBOSITY": "error", **tools_first(environ)}


def tools_first(environ: Mapping[str, str], python: str = sys.executable) -> dict[str, str]:
    """The environment with this interpreter's own programs first on PATH."""
    folder = str(Path(python).parent)
    rest = [entry for entry in environ.get("PATH", os.defpath).split(os.pathsep) if entry != folder]
    return {**environ, "PATH": os.pathsep.join([folder, *rest])}


def as_typed(program: str, python: str = sys.executable, path: str = _SHELL_PATH) -> str:
    """How one of this interpreter's own programs is called from the shell that started it.

    Its name where `path` finds it, else its file, relative to the working directory where it is below.
    """
    own = Path(python).parent / program
    found = shutil.which(program, path=path)
    if not own.is_file() or (found is not None and os.path.samefile(found, own)):
        return program
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def torchvision_loads(python: str = sys.executable) -> bool:
    """Whether torchvision's own library fits this torch; True also where torch has CUDA or torchvision is absent.

    Raises:
        RuntimeError: torch itself cannot be imported, or does not answer in time.
    """
    done = _run([python, "-c", _TORCHVISION_CHECK], _REPAIR_TIMEOUT_S)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"torch cannot be imported: {_last_line(done.stderr)}. Delete .venv and run make again.")
    return done.returncode == 0


def hook_files(site_packages: Path) -> dict[Path, str]:
    """The files of the import hook and what they hold."""
    return {
        site_packages / f"{HOOK_NAME}.py": _HOOK,
        site_packages / f"{HOOK_NAME.lstrip('_')}.pth": f"import {HOOK_NAME}\n",
    }


def hook_installed(site_packages: Path | None = None) -> bool:
    """Whether the import hook of this version is in place."""
    files = hook_files(site_packages or _site_packages())
    return all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in files.items())


def repair() -> Finding:
    """Makes torchvision importable with a CPU-only torch; does nothing when its wheel matches.

    Raises:
        RuntimeError: torch cannot be imported, or pip fails.
    """
    if torchvision_loads():
        return Finding("ok", "torchvision matches torch; nothing to repair")
    if sys.prefix == sys.base_prefix:
        return Finding(
            "fail", "torchvision does not match this CPU-only torch", "repair works in a virtual environment"
        )
    present = [name for name in UNLOADABLE if importlib.util.find_spec(name) is not None]
    if hook_installed() and not present:
        return Finding("ok", "CPU-only torch with CUDA-linked companions: repaired before")
    if present:
        done = _run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *present], _REPAIR_TIMEOUT_S)
        if done.returncode != 0:
            raise RuntimeError(f"pip could not uninstall {' and '.join(present)}: {_last_line(done.stderr)}")
    for path, text in hook_files(_site_packages()).items():
        path.write_text(text, encoding="utf-8")
    removed = f"; removed {' and '.join(present)}" if present else ""
    return Finding("ok", f"CPU-only torch with CUDA-linked companions: declared torchvision's operators{removed}")


def main(argv: Sequence[str]) -> int:
    """`check` and `repair`, in the order given; returns 1 as soon as one of them fails."""
    steps = {"check": check_prerequisites, "repair": lambda: [repair()]}
    if not argv or any(verb not in steps for verb in argv):
        print(f"usage: python -m avere_ray.environment {{{'|'.join(steps)}}} ...", file=sys.stderr)
        return 2
    for verb in argv:
        try:
            findings = steps[verb]()
        except (RuntimeError, OSError) as error:
            findings = [Finding("fail", str(error))]
        if verb != "check":
            print("\n".join(f"{verb}: {finding.what}" for finding in findings if finding.level == "ok"), flush=True)
        failures = [finding for finding in findings if finding.level == "fail"]
        for finding in failures:
            print(": ".join(filter(None, [verb, finding.what, finding.remedy])), file=sys.stderr)
        if failures:
            return 1
    return 0


def _python_finding(version: Sequence[int]) -> Finding:
    found, wanted = ".".join(map(str, version)), ".".join(map(str, MIN_PYTHON))
    if tuple(version) >= MIN_PYTHON:
        return Finding("ok", f"Python {found}")
    return Finding("fail", f"Python {found} is too old", f"install Python {wanted} or newer, or set PYTHON=/path/to/it")


def _venv_finding() -> Finding:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding("ok", "Python can create virtual environments")
    return Finding(
        "fail",
        f"Python {sys.executable} lacks {' and '.join(missing)}",
        f"install it (Debian, Ubuntu: apt install python3.{sys.version_info[1]}-venv)",
    )


def _headers_finding() -> Finding:
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if header.is_file():
        return Finding("ok", "Python headers")
    return Finding(
        "fail",
        f"Python's C headers are missing ({header})",
        f"install them (Debian, Ubuntu: apt install python3.{sys.version_info[1]}-dev); DeepSpeed compiles with them",
    )


def _program_finding(name: str, environ: Mapping[str, str]) -> Finding:
    path = shutil.which(name, path=environ.get("PATH"))
    if path:
        return Finding("ok", f"{name} {path}")
    return Finding("fail", f"{name} is not on PATH", f"install it (Debian, Ubuntu: apt install {name})")


def _compile_problem(compiler: str) -> str:
    try:
        done = subprocess.run(
            [compiler, "-x", "c++", "-fsyntax-only", "-"],
            input="#include <vector>\nint main() { return 0; }\n",
            capture_output=True,
            text=True,
            timeout=_COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else _last_line(done.stderr) or f"exit code {done.returncode}"


def _site_packages() -> Path:
    return Path(sysconfig.get_paths()["purelib"])


def _run(
    command: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} did not answer within {timeout_s:g} s") from error


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
