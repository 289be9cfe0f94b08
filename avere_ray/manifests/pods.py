"""Pods: what the API server checks beyond the schema."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping
from avere_ray.manifests.rules import Site, clusters_of, jobs_of, rule

DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIXES = {
    "": Decimal(1),
    **{s: Decimal(10) ** (3 * i) for i, s in enumerate("num", start=-3)},
    **{s: Decimal(1000) ** (i + 1) for i, s in enumerate(["k", "M", "G", "T", "P", "E"])},
    **{f"{s}i": Decimal(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
_CHOICES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
}
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """A pod template, wherever it stands."""

    path: str
    """Where it stands; its spec is at `<path>.spec`."""
    role: str
    """"head", "worker", "submitter", or the kind that holds it, for instance "Deployment"."""
    group: str
    """Name of the worker group; empty for other roles."""
    template: Body
    least: int = 1
    """How many of it there are at least, while it is not suspended."""

    @property
    def spec(self) -> Body:
        """The pod spec."""
        return mapping(self.template.get("spec"))

    @property
    def labels(self) -> Body:
        """Labels of the template."""
        return mapping(dig(self.template, "metadata", "labels"))

    def containers(self, *, init: bool = True) -> list[tuple[str, Body]]:
        """Path and spec of every container."""
        fields = ("initContainers", "containers") if init else ("containers",)
        return [(f"{self.path}.spec.{f}[{i}]", c) for f in fields for i, c in entries(self.spec.get(f))]

    @property
    def volumes(self) -> list[tuple[str, Body]]:
        """Path and spec of every volume."""
        return [(f"{self.path}.spec.volumes[{i}]", v) for i, v in entries(self.spec.get("volumes"))]


def pods_of(document: Document) -> Iterator[Pod]:
    """Every pod template of a document."""
    for cluster in clusters_of(document):
        head = mapping(cluster.head.get("template"))
        yield Pod(path=f"{cluster.path}.headGroupSpec.template", role="head", group="", template=head)
        for path, group in cluster.workers:
            name, template = str(group.get("groupName")), mapping(group.get("template"))
            least = cluster.least(group)
            yield Pod(path=f"{path}.template", role="worker", group=name, template=template, least=least)
    for path, spec in jobs_of(document):
        if template := mapping(spec.get("submitterPodTemplate")):
            yield Pod(path=f"{path}.submitterPodTemplate", role="submitter", group="", template=template)
    if document.kind in _WORKLOADS:
        template = mapping(dig(document.body, "spec", "template"))
        least = int(mapping(document.body.get("spec")).get("replicas", 1))
        yield Pod(path="spec.template", role=document.kind, group="", template=template, least=least)
    elif document.kind == "CronJob":
        keys = ("spec", "jobTemplate", "spec", "template")
        yield Pod(path=".".join(keys), role="CronJob", group="", template=mapping(dig(document.body, *keys)))
    elif document.kind == "Pod":
        yield Pod(path="", role="Pod", group="", template=document.body)


def quantity(value: object) -> Decimal | None:
    """A Kubernetes quantity ("500m", "8Gi", 2) as a number; None when it is none."""
    found = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if found is None or isinstance(value, bool):
        return None
    number, suffix = Decimal(found[1]), found[2] or ""
    return number * (_SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(10) ** int(suffix[1:]))


def resources(container: Body, kind: str) -> dict[str, Decimal]:
    """Requests or limits of a container that are valid quantities, by resource."""
    found = {name: quantity(value) for name, value in mapping(dig(container, "resources", kind)).items()}
    return {name: value for name, value in found.items() if value is not None}


@rule("quantity", "requests and limits are quantities that are not negative")
def check_quantities(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            for kind in ("requests", "limits"):
                for name, value in mapping(dig(container, "resources", kind)).items():
                    number = quantity(value)
                    if number is None or number < 0:
                        where = f"{path}.resources.{kind}.{name}"
                        yield Problem(where, f"{value!r} is no quantity; for instance '2', '500m' or 8Gi")


@rule("limits", "no request is above its limit, and extended resources such as GPUs have both, equal and whole")
def check_limits(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            requests, limits = resources(container, "requests"), resources(container, "limits")
            for name, wanted in requests.items():
                if "/" in name and limits.get(name) != wanted:
                    yield Problem(f"{path}.resources", f"{name}: requests and limits must both be set and equal")
                elif name in limits and wanted > limits[name]:
                    yield Problem(f"{path}.resources", f"{name}: request {wanted:f} is above limit {limits[name]:f}")
            for name, limit in limits.items():
                if "/" in name and limit != int(limit):
                    yield Problem(f"{path}.resources.limits", f"{name}: {limit} must be a whole number")


@rule("container-names", "container names are DNS labels, each used once in a pod")
def check_container_names(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        names = Counter(str(c.get("name")) for _, c in pod.containers())
        for path, container in pod.containers():
            name = str(container.get("name"))
            if not DNS_1123.fullmatch(name):
                yield Problem(f"{path}.name", f"{name!r} must be lower-case letters, digits and '-'")
            if names[name] > 1:
                yield Problem(f"{path}.name", f"{name!r} is used {names[name]} times in this pod")


@rule("image", "every container has an image")
def check_has_image(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            if not str(container.get("image") or "").strip():
                yield Problem(f"{path}.image", "is missing")


@rule("volumes", "volumes have one source each, names are used once, and every mount names a volume")
def check_volumes(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        names = Counter(str(v.get("name")) for _, v in pod.volumes)
        for path, volume in pod.volumes:
            if names[str(volume.get("name"))] > 1:
                yield Problem(f"{path}.name", f"{volume.get('name')!r} is used twice")
            sources = [k for k in volume if k != "name"]
            if len(sources) > 1:
                yield Problem(path, f"has {len(sources)} sources ({', '.join(sorted(sources))}); one is allowed")
        claimed = {str(t.get("metadata", {}).get("name")) for _, t in entries(_claims(document))}
        for path, container in pod.containers():
            yield from _mounts(path, container, set(names) | claimed)


def _mounts(path: str, container: Body, volumes: set[str]) -> Iterator[Problem]:
    mounts = entries(container.get("volumeMounts"))
    places = Counter(str(m.get("mountPath")) for _, m in mounts)
    for i, mount in mounts:
        where = f"{path}.volumeMounts[{i}]"
        if mount.get("name") not in volumes:
            yield Problem(f"{where}.name", f"{mount.get('name')!r} is no volume of the pod: {_listed(volumes)}")
        if places[str(mount.get("mountPath"))] > 1:
            yield Problem(f"{where}.mountPath", f"{mount.get('mountPath')} is mounted twice")


def _claims(document: Document) -> object:
    return dig(document.body, "spec", "volumeClaimTemplates") if document.kind == "StatefulSet" else None


@rule("ports", "ports are 1 to 65535, and their names are short and used once in a container")
def check_ports(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            names: Counter[str] = Counter(str(p["name"]) for _, p in entries(container.get("ports")) if "name" in p)
            for i, port in entries(container.get("ports")):
                where = f"{path}.ports[{i}]"
                if not 1 <= int(port.get("containerPort", 0)) <= 65535:
                    yield Problem(f"{where}.containerPort", f"{port.get('containerPort')} must be 1 to 65535")
                name = str(port.get("name", "p"))
                if len(name) > 15 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
                    yield Problem(f"{where}.name", f"{name!r}: at most 15 lower-case letters, digits and '-'")
                if names[name] > 1:
                    yield Problem(f"{where}.name", f"{name!r} is used twice")


@rule("env", "an environment variable has a value or a source, not both")
def check_env(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            for i, variable in entries(container.get("env")):
                if variable.get("value") and variable.get("valueFrom"):
                    yield Problem(f"{path}.env[{i}]", f"{variable.get('name')} has both value and valueFrom")


@rule("choices", "restart, pull and DNS policies are ones that exist")
def check_choices(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for field, allowed in _CHOICES.items():
            if field in pod.spec and pod.spec[field] not in allowed:
                where = f"{pod.path}.spec.{field}"
                yield Problem(where, f"{pod.spec[field]!r} is not allowed; allowed: {', '.join(allowed)}")
        for path, container in pod.containers():
            policy = container.get("imagePullPolicy", "Always")
            if policy not in _PULL_POLICIES:
                where = f"{path}.imagePullPolicy"
                yield Problem(where, f"{policy!r} is not allowed; allowed: {', '.join(_PULL_POLICIES)}")


@rule("selector", "a workload selects the pods of its own template", kinds=("Deployment", "StatefulSet", "ReplicaSet"))
def check_selector(document: Document, site: Site) -> Iterator[Problem]:
    selector = mapping(dig(document.body, "spec", "selector", "matchLabels"))
    for pod in pods_of(document):
        for key, value in selector.items():
            if pod.labels.get(key) != value:
                yield Problem("spec.selector.matchLabels", f"{key}: {value!r} is not a label of the pod template")


def _listed(names: set[str]) -> str:
    return f"it has {', '.join(sorted(names))}" if names else "it has none"
