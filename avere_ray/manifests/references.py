"""Names that documents use of each other: everything referred to must be there, in the same kustomization.

What a person provides by hand (secrets above all) is listed in external.yaml, as documents whose keys have no values.
"""

from collections.abc import Iterator, Mapping

from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping, sequence
from avere_ray.manifests.pods import Pod, pods_of
from avere_ray.manifests.rules import Site, clusters_of, rule

Source = tuple[str, str, str, str | None]
"""Path, kind, name and key (None for the whole object) of something referred to."""

_BUILT_IN_PRIORITIES = ("system-cluster-critical", "system-node-critical")
_CLUSTER_WIDE = ("Namespace", "PriorityClass", "StorageClass", "ClusterRole", "ClusterRoleBinding")
_VOLUME_SOURCES = {
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}


@rule("exists", "secrets, config maps, claims, accounts and priority classes that are named exist", group="house")
def check_exists(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, kind, name, key in [*_volumes(pod), *_environment(pod), *_of_pod(pod)]:
            yield from _missing(path, kind, name, key, document, site)
    for cluster in clusters_of(document):
        reference = dig(cluster.spec, "gcsFaultToleranceOptions", "redisPassword", "valueFrom", "secretKeyRef")
        if isinstance(reference, dict):
            path = f"{cluster.path}.gcsFaultToleranceOptions.redisPassword"
            yield from _missing(path, "Secret", str(reference.get("name")), reference.get("key"), document, site)
        secret = dig(cluster.spec, "authOptions", "secretName")
        if secret:
            yield from _missing(f"{cluster.path}.authOptions", "Secret", secret, "auth_token", document, site)


@rule("in-namespace", "everything stands in a namespace that the kustomization makes", group="house")
def check_namespace(document: Document, site: Site) -> Iterator[Problem]:
    if document.kind in _CLUSTER_WIDE:
        return
    if not document.namespace:
        yield Problem("metadata.namespace", "is missing")
    elif _find("Namespace", document.namespace, None, site) is None:
        yield Problem("metadata.namespace", f"there is no Namespace {document.namespace!r}")


@rule("unique", "no two documents have the same kind, name and namespace")
def check_unique(document: Document, site: Site) -> Iterator[Problem]:
    same = [d for d in site.documents if (d.kind, d.name, d.namespace) == _key(document)]
    if document.name and len(same) > 1:
        yield Problem("metadata.name", f"{len(same)} documents are {document.label} in the same namespace")


@rule("role-binding", "role bindings name roles and accounts that exist", kinds=("RoleBinding",), group="house")
def check_binding(document: Document, site: Site) -> Iterator[Problem]:
    reference = mapping(document.body.get("roleRef"))
    if _find(str(reference.get("kind")), str(reference.get("name")), None, site) is None:
        yield Problem("roleRef.name", f"there is no {reference.get('kind')} {reference.get('name')!r}")
    for i, subject in entries(document.body.get("subjects")):
        if subject.get("kind") == "ServiceAccount":
            found = _find("ServiceAccount", str(subject.get("name")), document.namespace, site)
            if found is None:
                yield Problem(f"subjects[{i}].name", f"there is no ServiceAccount {subject.get('name')!r}")


@rule(
    "least-rights", "roles name what they allow: no wildcards, no secrets", kinds=("Role", "ClusterRole"), group="house"
)
def check_rights(document: Document, site: Site) -> Iterator[Problem]:
    for i, found in entries(document.body.get("rules")):
        for field in ("apiGroups", "resources", "verbs"):
            if "*" in sequence(found.get(field)):
                yield Problem(f"rules[{i}].{field}", "'*' allows everything; name what is needed")
        if "secrets" in sequence(found.get("resources")):
            yield Problem(f"rules[{i}].resources", "secrets must not be readable")


@rule("selects", "services, disruption budgets and network policies select pods that exist", group="house")
def check_selects(document: Document, site: Site) -> Iterator[Problem]:
    fields = {
        "Service": ("spec.selector", dig(document.body, "spec", "selector")),
        "PodDisruptionBudget": ("spec.selector", dig(document.body, "spec", "selector", "matchLabels")),
        "NetworkPolicy": ("spec.podSelector", dig(document.body, "spec", "podSelector", "matchLabels")),
    }
    path, selector = fields.get(document.kind, ("", None))
    if selector and not any(_selected(selector, labels) for _, labels in _all_labels(site)):
        wanted = ", ".join(f"{k}={v}" for k, v in selector.items())
        yield Problem(path, f"no pod here has the labels {wanted}")


@rule(
    "disruption-budget",
    "a disruption budget over Ray's pods says how many stay, as a whole number below what there is",
    kinds=("PodDisruptionBudget",),
    group="house",
)
def check_budget(document: Document, site: Site) -> Iterator[Problem]:
    spec = mapping(document.body.get("spec"))
    selector = mapping(dig(spec, "selector", "matchLabels"))
    pods = [pod for pod, labels in _all_labels(site) if selector and _selected(selector, labels)]
    if not any(pod.role in ("head", "worker") for pod in pods):
        return
    stay, there = spec.get("minAvailable"), sum(pod.least for pod in pods)
    if "maxUnavailable" in spec or not isinstance(stay, int):
        yield Problem(
            "spec",
            "needs minAvailable as a whole number: Kubernetes cannot ask KubeRay's kinds how many pods they want, so "
            "with maxUnavailable or percentages no node with one of them can be drained",
        )
    elif stay >= there:
        yield Problem("spec.minAvailable", f"{stay} must be below {there}, the pods there are at least")


@rule("service-ports", "a service's target port is a port of the pods it selects", kinds=("Service",), group="house")
def check_service_ports(document: Document, site: Site) -> Iterator[Problem]:
    selector = mapping(dig(document.body, "spec", "selector"))
    pods = [pod for pod, labels in _all_labels(site) if selector and _selected(selector, labels)]
    for i, port in entries(dig(document.body, "spec", "ports")):
        target = port.get("targetPort", port.get("port"))
        if pods and not any(_has_port(pod, target) for pod in pods):
            yield Problem(f"spec.ports[{i}].targetPort", f"{target!r} is no port of the pods it selects")


@rule("probe-ports", "a probe asks a port of its container", group="house")
def check_probe_ports(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                for action in ("httpGet", "tcpSocket", "grpc"):
                    port = dig(container, probe, action, "port")
                    if port is not None and not _container_has(container, port):
                        yield Problem(f"{path}.{probe}.{action}.port", f"{port!r} is no port of this container")


def _volumes(pod: Pod) -> Iterator[Source]:
    for path, volume in pod.volumes:
        for field, (kind, name_field) in _VOLUME_SOURCES.items():
            source = mapping(volume.get(field))
            if source and not source.get("optional"):
                name = str(source.get(name_field))
                yield path, kind, name, None
                for _, item in entries(source.get("items")):
                    yield path, kind, name, str(item.get("key"))


def _environment(pod: Pod) -> Iterator[Source]:
    for path, container in pod.containers():
        for i, variable in entries(container.get("env")):
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                reference = dig(variable, "valueFrom", field)
                if isinstance(reference, dict) and not reference.get("optional"):
                    yield f"{path}.env[{i}]", kind, str(reference.get("name")), str(reference.get("key"))
        for i, source in entries(container.get("envFrom")):
            for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if isinstance(source.get(field), dict) and not source[field].get("optional"):
                    yield f"{path}.envFrom[{i}]", kind, str(source[field].get("name")), None


def _of_pod(pod: Pod) -> Iterator[Source]:
    spec, path = pod.spec, f"{pod.path}.spec"
    if spec.get("serviceAccountName"):
        yield f"{path}.serviceAccountName", "ServiceAccount", str(spec["serviceAccountName"]), None
    if spec.get("priorityClassName") not in (None, *_BUILT_IN_PRIORITIES):
        yield f"{path}.priorityClassName", "PriorityClass", str(spec["priorityClassName"]), None
    for i, secret in entries(spec.get("imagePullSecrets")):
        yield f"{path}.imagePullSecrets[{i}]", "Secret", str(secret.get("name")), None


def _missing(path: str, kind: str, name: str, key: str | None, document: Document, site: Site) -> Iterator[Problem]:
    namespace = None if kind in _CLUSTER_WIDE else document.namespace
    found = _find(kind, name, namespace, site)
    if found is None:
        given = "; list it in external.yaml if a person creates it" if kind == "Secret" else ""
        yield Problem(path, f"there is no {kind} {name!r}{given}")
    elif key is not None and kind in ("Secret", "ConfigMap"):
        keys = {k for field in ("data", "stringData", "binaryData") for k in mapping(found.body.get(field))}
        if key not in keys:
            yield Problem(path, f"{kind} {name!r} has no key {key!r}; it has {', '.join(sorted(keys)) or 'none'}")


def _find(kind: str, name: str, namespace: str | None, site: Site) -> Document | None:
    for document in [*site.documents, *site.given]:
        same_place = namespace is None or not document.namespace or document.namespace == namespace
        if (document.kind, document.name) == (kind, name) and same_place:
            return document
    return None


def _key(document: Document) -> tuple[str, str, str]:
    return document.kind, document.name, document.namespace


def _all_labels(site: Site) -> Iterator[tuple[Pod, Mapping[str, object]]]:
    """Every pod of the site with its labels, those that KubeRay adds included."""
    for document in site.documents:
        for pod in pods_of(document):
            yield pod, {**pod.labels, **_added_labels(document, pod)}


def _added_labels(document: Document, pod: Pod) -> Body:
    if pod.role not in ("head", "worker"):
        return {}
    added = {
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": pod.role,
        "ray.io/group": "headgroup" if pod.role == "head" else pod.group,
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "ray.io/originated-from-crd": document.kind,
        "ray.io/originated-from-cr-name": document.name,
    }
    if document.kind == "RayCluster":
        added["ray.io/cluster"] = document.name
    if document.kind == "RayService":
        added["ray.io/serve"] = "true"
    return added


def _selected(selector: Mapping[str, object], labels: Mapping[str, object]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _has_port(pod: Pod, target: object) -> bool:
    return any(_container_has(container, target) for _, container in pod.containers())


def _container_has(container: Body, port: object) -> bool:
    ports = [p for _, p in entries(container.get("ports"))]
    return any(port in (p.get("name"), p.get("containerPort")) for p in ports)
