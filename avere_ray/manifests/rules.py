"""The table of rules and what they are given. A rule is a function that yields the problems of one document."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from avere_ray.manifests.documents import Body, Document, Finding, Problem, dig, entries, mapping
from avere_ray.manifests.schemas import admitted, check_schema

Group = Literal["cluster", "house"]
RAY_KINDS = ("RayCluster", "RayJob", "RayService", "RayCronJob")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the documents are applied together with."""

    documents: Sequence[Document] = ()
    """All documents of the same kustomization or file."""
    given: Sequence[Document] = ()
    """What the person who installs provides, for instance secrets: names and keys without values."""
    root: Path | None = None
    """The repository, for entrypoints, configs and Dockerfiles; None when there is none."""
    serve_check: Callable[[Body], Iterable[Problem]] | None = field(default=None)
    """Checks a parsed serveConfigV2 with Ray's own schema; paths are relative to it."""


Check = Callable[[Document, Site], Iterator[Problem]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule."""

    name: str
    """For messages and tests, for instance "auth-version"."""
    says: str
    """The rule as a sentence."""
    group: Group
    """Who minds: the cluster, or this project alone."""
    kinds: tuple[str, ...]
    """Kinds it looks at; empty for all."""
    check: Check

    def looks_at(self, document: Document) -> bool:
        """Whether it has something to say about documents of this kind."""
        return not self.kinds or document.kind in self.kinds


RULES: dict[str, Rule] = {}


def rule(name: str, says: str, *, kinds: Iterable[str] = (), group: Group = "cluster") -> Callable[[Check], Check]:
    """Puts a function into the table of rules."""

    def add(check: Check) -> Check:
        RULES[name] = Rule(name=name, says=says, group=group, kinds=tuple(kinds), check=check)
        return check

    return add


@rule("schema", "a document has the fields of its kind, and no others")
def _schema(document: Document, site: Site) -> Iterator[Problem]:
    yield from check_schema(replace(document, body=document.written))


def run_rules(
    documents: Sequence[Document], site: Site, groups: Iterable[Group], *, only: Callable[[Body], bool] | None = None
) -> list[Finding]:
    """Every problem of every document; one that breaks its schema is not looked at further.

    `only`: looks at the documents, as written, for which it is true; the others are what they refer to.
    """
    stored = [replace(d, body=admitted(d.body), written=d.body) for d in documents]
    given = [replace(d, body=admitted(d.body), written=d.body) for d in site.given]
    site = replace(site, documents=stored, given=given)
    findings: list[Finding] = []
    for document in stored if only is None else [d for d in stored if only(d.written)]:
        broken = _findings(RULES["schema"], document, site)
        findings += broken
        if not broken:
            for found in RULES.values():
                if found.name != "schema" and found.group in groups and found.looks_at(document):
                    findings += _findings(found, document, site)
    return findings


def _findings(found: Rule, document: Document, site: Site) -> list[Finding]:
    return [
        Finding(
            file=document.file,
            source=document.source,
            document=document.label,
            path=p.path,
            rule=found.name,
            message=p.message,
        )
        for p in found.check(document, site)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A RayCluster spec, wherever it stands."""

    path: str
    """Where it stands, for instance "spec.rayClusterSpec"."""
    spec: Body
    annotations: Body
    """Annotations of the document it belongs to."""

    @property
    def head(self) -> Body:
        """The head group."""
        return mapping(self.spec.get("headGroupSpec"))

    @property
    def workers(self) -> list[tuple[str, Body]]:
        """Path and spec of each worker group."""
        return [(f"{self.path}.workerGroupSpecs[{i}]", g) for i, g in entries(self.spec.get("workerGroupSpecs"))]

    @property
    def groups(self) -> list[tuple[str, str, Body]]:
        """Path, name and spec of the head and every worker group."""
        head = (f"{self.path}.headGroupSpec", "head", self.head)
        return [head, *((path, str(g.get("groupName")), g) for path, g in self.workers)]

    @property
    def autoscaled(self) -> bool:
        """Whether the autoscaler runs."""
        return self.spec.get("enableInTreeAutoscaling") is True

    def least(self, group: Body) -> int:
        """How many pods a worker group has at least."""
        nodes = group.get("minReplicas", 0) if self.autoscaled else group.get("replicas", 0)
        return int(nodes) * int(group.get("numOfHosts", 1))


def clusters_of(document: Document) -> Iterator[Cluster]:
    """The RayCluster specs of a document."""
    paths = {
        "RayCluster": ("spec",),
        "RayJob": ("spec", "rayClusterSpec"),
        "RayService": ("spec", "rayClusterConfig"),
        "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
    }
    keys = paths.get(document.kind, ())
    spec = dig(document.body, *keys) if keys else None
    if isinstance(spec, dict):
        annotations = mapping(dig(document.body, "metadata", "annotations"))
        yield Cluster(path=".".join(keys), spec=spec, annotations=annotations)


def jobs_of(document: Document) -> Iterator[tuple[str, Body]]:
    """Path and RayJob spec of a RayJob or RayCronJob."""
    if document.kind == "RayJob":
        yield "spec", mapping(document.body.get("spec"))
    elif document.kind == "RayCronJob":
        yield "spec.jobTemplate", mapping(dig(document.body, "spec", "jobTemplate"))
