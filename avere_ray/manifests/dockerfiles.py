"""Rules for Dockerfiles: small, reproducible, not root, and from the same constraints as everything else."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avere_ray.errors import InputError
from avere_ray.manifests.documents import Finding, Problem
from avere_ray.manifests.workloads import constrained_version

INSTRUCTIONS = (
    "FROM", "RUN", "CMD", "LABEL", "EXPOSE", "ENV", "ADD", "COPY", "ENTRYPOINT", "VOLUME", "USER", "WORKDIR", "ARG",
    "ONBUILD", "STOPSIGNAL", "HEALTHCHECK", "SHELL",
)  # fmt: skip
LABELS = ("org.opencontainers.image.title", "org.opencontainers.image.version", "org.opencontainers.image.licenses")
RAY_LABEL = "io.ray.version"
"""Label that says which Ray an image holds; the same as constraints.txt, and so as every rayVersion."""

LIBRARIES = {"cpu": "libnuma1"}
"""Debian packages that the wheels of an extra need at run time: vLLM's CPU kernels load libnuma."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined."""

    line: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile."""

    instructions: tuple[Instruction, ...]
    context: Path
    """Folder that COPY is relative to."""

    def named(self, *names: str) -> list[Instruction]:
        """The instructions with these names."""
        return [i for i in self.instructions if i.name in names]

    def last_stage(self) -> list[Instruction]:
        """From the last FROM on."""
        starts = [n for n, i in enumerate(self.instructions) if i.name == "FROM"]
        return list(self.instructions[starts[-1] :]) if starts else []


Check = Callable[[Dockerfile], Iterator[Problem]]


def check_dockerfile(path: Path, root: Path) -> list[Finding]:
    """Every broken rule of a Dockerfile; COPY is relative to `root`.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    parsed = Dockerfile(parse(text), root)
    return [
        Finding(file=str(path), document="Dockerfile", path=p.path, rule=name, message=p.message)
        for name, check in CHECKS.items()
        for p in check(parsed)
    ]


def parse(text: str) -> tuple[Instruction, ...]:
    """The instructions of a Dockerfile; comments are left out and continued lines joined."""
    found, pending, start = [], "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start or number
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip() + " "
            continue
        name, _, rest = pending.partition(" ")
        found.append(Instruction(start, name.upper(), rest.strip()))
        pending, start = "", 0
    return tuple(found)


def _instructions(file: Dockerfile) -> Iterator[Problem]:
    for i in file.instructions:
        if i.name not in INSTRUCTIONS:
            yield _at(i, f"{i.name} is no instruction")
        if i.name == "ADD":
            yield _at(i, "use COPY; ADD unpacks archives and fetches addresses")
        if i.name in ("CMD", "ENTRYPOINT") and not _is_exec(i.text):
            yield _at(i, f'{i.name} must be a JSON list, for instance {i.name} ["ray", "--version"]')
        if i.name == "WORKDIR" and not i.text.startswith(("/", "$")):
            yield _at(i, "WORKDIR must be absolute")


def _base_images(file: Dockerfile) -> Iterator[Problem]:
    arguments = dict(i.text.split("=", 1) for i in file.named("ARG") if "=" in i.text)
    stages: set[str] = set()
    for i in file.named("FROM"):
        words = [w for w in i.text.split() if not w.startswith("--")]
        image = re.sub(r"\$\{?(\w+)\}?", lambda m: arguments.get(m[1], ""), words[0])
        if image not in stages:
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield _at(i, f"base image {image!r} needs a version other than latest")
        if len(words) == 3:
            stages.add(words[2])
    if len(file.named("FROM")) < 2:
        yield Problem("FROM", "build in one stage and run in another, so that build tools stay behind")


def _user(file: Dockerfile) -> Iterator[Problem]:
    users = [i for i in file.last_stage() if i.name == "USER"]
    if not users:
        yield Problem("USER", "the last stage must set USER; else the container runs as root")
    elif not re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1].text):
        yield _at(users[-1], f"USER {users[-1].text} must be a number above 0; runAsNonRoot cannot check names")


def _apt(file: Dockerfile) -> Iterator[Problem]:
    for i in file.named("RUN"):
        if re.search(r"\bsudo\b", i.text):
            yield _at(i, "sudo is not needed while building")
        if re.search(r"\bapt\s+(install|update)", i.text):
            yield _at(i, "use apt-get; apt is for people")
        if "apt-get install" in i.text:
            needed = ("apt-get update", "-y", "--no-install-recommends", "rm -rf /var/lib/apt/lists")
            for part in needed:
                if part not in i.text:
                    yield _at(i, f"apt-get install without {part} in the same RUN")


def _pip(file: Dockerfile) -> Iterator[Problem]:
    for i in file.named("RUN"):
        for command in re.split(r"&&|;", i.text):
            if re.search(r"\bpip3? install\b", command):
                if "--no-cache-dir" not in command and "--mount=type=cache" not in i.text:
                    yield _at(i, "pip install without --no-cache-dir")
                if not re.search(r"-c \S*constraints\.txt", command):
                    yield _at(i, "pip install without -c constraints.txt, which pins every version")


def _shell(file: Dockerfile) -> Iterator[Problem]:
    piped = [i for i in file.named("RUN") if re.search(r"[^|]\|[^|]", i.text) and "pipefail" not in i.text]
    if piped and not any("pipefail" in i.text for i in file.named("SHELL")):
        yield _at(piped[0], "a pipe hides a failing command; set SHELL with -o pipefail")
    for i in file.named("RUN"):
        if re.match(r"cd\s", i.text):
            yield _at(i, "use WORKDIR rather than cd")


def _libraries(file: Dockerfile) -> Iterator[Problem]:
    built = " ".join(i.text for i in file.named("RUN"))
    run = " ".join(i.text for i in file.last_stage() if i.name == "RUN" and "apt-get install" in i.text)
    for extra, library in LIBRARIES.items():
        if f"[{extra}]" in built and library not in run.split():
            yield Problem("RUN", f"the last stage must install {library}, which the wheels of [{extra}] load")


def _secrets(file: Dockerfile) -> Iterator[Problem]:
    for i in file.named("ENV", "ARG"):
        for name, value in re.findall(r"(\w+)=(\S*)", i.text):
            if value and re.search(r"(TOKEN|PASSWORD|SECRET|CREDENTIALS)$", name.upper()):
                yield _at(i, f"{name} stays readable in the image; mount it as a secret instead")


def _copies(file: Dockerfile) -> Iterator[Problem]:
    for i in file.named("COPY"):
        if "--from=" in i.text:
            continue
        words = [w for w in i.text.split() if not w.startswith("--")]
        for source in words[:-1]:
            if source == "." or not any(file.context.glob(source.rstrip("/"))):
                what = "copies everything, local files too" if source == "." else "does not exist"
                yield _at(i, f"COPY {source}: {what}")


def _labels(file: Dockerfile) -> Iterator[Problem]:
    arguments = dict(i.text.split("=", 1) for i in file.named("ARG") if "=" in i.text)
    text = " ".join(i.text for i in file.last_stage() if i.name == "LABEL")
    found = dict(re.findall(r'([\w.-]+)="?([^"\s]*)"?', text))
    for label in LABELS:
        if label not in found:
            yield Problem("LABEL", f"{label} is missing")
    if RAY_LABEL in found:
        ray = re.sub(r"\$\{?(\w+)\}?", lambda m: arguments.get(m[1], ""), found[RAY_LABEL])
        pinned = constrained_version("ray", file.context)
        if ray != pinned:
            yield Problem("LABEL", f"{RAY_LABEL} is {ray!r}, constraints.txt has ray {pinned}")


CHECKS: dict[str, Check] = {
    "docker-instructions": _instructions,
    "docker-base": _base_images,
    "docker-user": _user,
    "docker-apt": _apt,
    "docker-pip": _pip,
    "docker-shell": _shell,
    "docker-libraries": _libraries,
    "docker-secrets": _secrets,
    "docker-copy": _copies,
    "docker-labels": _labels,
}
"""The rules, by name."""


def _is_exec(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _at(instruction: Instruction, message: str) -> Problem:
    return Problem(f"line {instruction.line}", message)
