"""Validates what lies at a path: a kustomization, a manifest, a Dockerfile, or a folder with any of these."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from avere_ray.errors import InputError
from avere_ray.manifests import clusters, house, jobs, pods, references, workloads
from avere_ray.manifests.dockerfiles import check_dockerfile
from avere_ray.manifests.documents import Body, Document, Finding, Problem, as_documents, load_yaml
from avere_ray.manifests.kustomize import FILE, kustomizations, render
from avere_ray.manifests.rules import RULES, Group, Site, run_rules

RULE_MODULES = (clusters, house, jobs, pods, references, workloads)
"""Importing them fills the table of rules."""
EXTERNAL = "external.yaml"
"""What a person provides by hand, in or above the folder of a kustomization: documents whose keys have no values."""
ALL_GROUPS: tuple[Group, ...] = ("cluster", "house")

ServeCheck = Callable[[Body], Iterable[Problem]]


class Report:
    """What was looked at, and what was found."""

    def __init__(self) -> None:
        self.documents = 0
        self.places: list[str] = []
        self.findings: list[Finding] = []

    def add(self, place: str, documents: Sequence[Document], findings: Sequence[Finding]) -> None:
        """Counts a place and what was found there."""
        self.places.append(place)
        self.documents += len(documents)
        self.findings += findings


def validate(path: Path, *, groups: Iterable[Group] = ALL_GROUPS, serve_check: ServeCheck | None = None) -> Report:
    """Every problem at a path.

    Args:
        path: a kustomization's folder, a YAML file, a Dockerfile, or a folder that is searched for kustomizations and
            Dockerfiles, or, where it has no kustomization, for YAML files.
        groups: "cluster" rules, "house" rules, or both.
        serve_check: checks a parsed serveConfigV2, see `Site`.

    Raises:
        InputError: the path does not exist, holds nothing to validate, or cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist. Name a kustomization, a manifest, a Dockerfile or a folder of them.")
    report, root, wanted = Report(), repository(path), tuple(groups)
    for folder in kustomizations(path) if path.is_dir() else []:
        documents = render(folder)
        site = Site(documents=documents, given=external(folder), root=root, serve_check=serve_check)
        report.add(str(folder), documents, run_rules(documents, site, wanted))
    for file in _manifest_files(path, report):
        documents = list(as_documents(str(file), load_yaml(file)))
        site = Site(documents=documents, given=external(file.parent), root=root, serve_check=serve_check)
        report.add(str(file), documents, run_rules(documents, site, wanted))
    for file in _dockerfiles(path) if "house" in wanted else []:
        report.add(str(file), [], check_dockerfile(file, root or file.parent))
    if not report.places:
        raise InputError(f"{path} holds no {FILE}, no YAML file and no Dockerfile")
    return report


def repository(path: Path) -> Path | None:
    """The folder at or above a path that holds this project: pyproject.toml and jobs/; None when there is none."""
    for folder in [path.resolve(), *path.resolve().parents]:
        if (folder / "pyproject.toml").is_file() and (folder / "jobs").is_dir():
            return folder
    return None


def external(folder: Path) -> list[Document]:
    """Documents of the nearest external.yaml at or above a folder; none when there is no such file."""
    for place in [folder.resolve(), *folder.resolve().parents]:
        if (place / EXTERNAL).is_file():
            return list(as_documents(str(place / EXTERNAL), load_yaml(place / EXTERNAL)))
    return []


def rules_in_words() -> list[str]:
    """One line a rule: its name, who minds, and what it says."""
    width = max(len(name) for name in RULES)
    return [f"{rule.name:<{width}}  {rule.group:<7}  {rule.says}" for rule in RULES.values()]


def _manifest_files(path: Path, report: Report) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in (".yaml", ".yml", ".json") else []
    return [] if report.places else sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])


def _dockerfiles(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if "Dockerfile" in path.name else []
    return sorted(p for p in path.rglob("*Dockerfile*") if p.is_file() and not p.name.endswith(".dockerignore"))
