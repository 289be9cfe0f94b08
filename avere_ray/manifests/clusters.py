"""What KubeRay v1.7's operator refuses in a cluster that the schema allows, and how clusters are set up here.

The operator's rules are those of its validation.go at the tag; a cluster that breaks one is created and then never
gets a pod, with the reason in an event only.
"""

import re
from collections.abc import Iterator

from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping
from avere_ray.manifests.pods import DNS_1123
from avere_ray.manifests.rules import RAY_KINDS, Cluster, Site, clusters_of, jobs_of, rule

NAME_LIMITS = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

_LABEL_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RESOURCE_PARAMS = ("num-cpus", "num-gpus", "memory", "resources")


def head_env(cluster: Cluster) -> dict[str, Body]:
    """Environment variables of the head's Ray container (its first), by name."""
    containers = entries(dig(cluster.head, "template", "spec", "containers"))
    return {str(e.get("name")): e for _, e in entries(containers[0][1].get("env"))} if containers else {}


def start_params(group: Body) -> Body:
    """rayStartParams of a group."""
    return mapping(group.get("rayStartParams"))


def autoscaler_v2(cluster: Cluster) -> bool:
    """Whether the options name the second autoscaler, which is all that the operator looks at.

    Ray itself takes it since 2.47 where nothing is said; the operator's rules do not follow that.
    """
    return dig(cluster.spec, "autoscalerOptions", "version") == "v2"


def ray_version(cluster: Cluster) -> tuple[int, ...] | None:
    """rayVersion as numbers; None when it is missing or not a version."""
    found = re.fullmatch(r"\s*v?(\d+)\.(\d+)(?:\.(\d+))?.*", str(cluster.spec.get("rayVersion") or ""))
    return tuple(int(n or 0) for n in found.groups()) if found else None


def valid_label(key: str, value: str) -> str | None:
    """What is wrong with a label; None when nothing is."""
    prefix, _, name = str(key).rpartition("/")
    if not _LABEL_NAME.fullmatch(name) or (prefix and not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"{key!r} is no label key: letters, digits, '-', '_', '.', with an optional DNS prefix before '/'"
    if not _LABEL_VALUE.fullmatch(str(value)):
        return f"{value!r} is no label value: at most 63 letters, digits, '-', '_', '.'"
    return None


@rule("name", "names are DNS labels that start with a letter, short enough for what is made from them", kinds=RAY_KINDS)
def check_name(document: Document, site: Site) -> Iterator[Problem]:
    limit, prefix = NAME_LIMITS[document.kind], dig(document.body, "metadata", "generateName")
    name = document.name or (f"{prefix}xxxxx" if prefix else "")  # the API server adds five signs of its own
    if len(name) > limit:
        yield Problem("metadata.name", f"{name!r} has {len(name)} characters; allowed: {limit}")
    if not DNS_1035.fullmatch(name):
        yield Problem("metadata.name", f"{name!r} must be lower-case letters, digits and '-', starting with a letter")


@rule("group-container", "every group has a container", kinds=RAY_KINDS)
def check_containers(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, name, group in cluster.groups:
            if not entries(dig(group, "template", "spec", "containers")):
                yield Problem(f"{path}.template.spec.containers", f"group {name} has no container")


@rule("group-resources", "a group's resources stand in one place", kinds=RAY_KINDS)
def check_group_resources(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, name, group in cluster.groups:
            twice = [p for p in _RESOURCE_PARAMS if start_params(group).get(p)]
            if twice and group.get("resources"):
                yield Problem(
                    f"{path}.resources",
                    f"group {name} sets resources and rayStartParams {', '.join(twice)}; use one of them",
                )


@rule("group-labels", "Ray labels stand in a group's labels and have the syntax of labels", kinds=RAY_KINDS)
def check_group_labels(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, name, group in cluster.groups:
            if "labels" in start_params(group):
                yield Problem(f"{path}.rayStartParams.labels", f"group {name}: use the group's labels instead")
            for key, value in mapping(group.get("labels")).items():
                if wrong := valid_label(key, value):
                    yield Problem(f"{path}.labels", wrong)


@rule("replicas", "0 <= minReplicas <= maxReplicas", kinds=RAY_KINDS)
def check_replicas(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, group in cluster.workers:
            low, high = int(group.get("minReplicas", 0)), int(group.get("maxReplicas", 0))
            for field, value in (("minReplicas", low), ("maxReplicas", high)):
                if value < 0:
                    yield Problem(f"{path}.{field}", f"{value} is negative")
            if low > high:
                yield Problem(f"{path}.minReplicas", f"{low} is above maxReplicas {high}")


@rule("idle-timeout", "idle times are not negative, and a group's own needs autoscaler v2", kinds=RAY_KINDS)
def check_idle_timeout(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        option = dig(cluster.spec, "autoscalerOptions", "idleTimeoutSeconds")
        if option is not None and option < 0:
            yield Problem(f"{cluster.path}.autoscalerOptions.idleTimeoutSeconds", f"{option} is negative")
        for path, group in cluster.workers:
            idle = group.get("idleTimeoutSeconds")
            if idle is not None and idle < 0:
                yield Problem(f"{path}.idleTimeoutSeconds", f"{idle} is negative")
            if idle is not None and not (autoscaler_v2(cluster) or _v2_by_env(cluster)):
                yield Problem(f"{path}.idleTimeoutSeconds", "needs autoscaler v2: set autoscalerOptions.version: v2")


@rule("group-priority", "a group's priority needs autoscaler v2 and Ray 2.56", kinds=RAY_KINDS)
def check_priority(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, group in cluster.workers:
            if not group.get("priority"):
                continue
            if (ray_version(cluster) or (0,)) < (2, 56):
                yield Problem(f"{path}.priority", f"needs rayVersion 2.56.0 or later, not {_version(cluster)}")
            if not (autoscaler_v2(cluster) or _v2_by_env(cluster)):
                yield Problem(f"{path}.priority", "needs autoscaler v2: set autoscalerOptions.version: v2")


@rule("group-suspend", "a group is not suspended while the autoscaler runs", kinds=RAY_KINDS)
def check_suspend(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, group in cluster.workers:
            if group.get("suspend") and cluster.autoscaled:
                yield Problem(f"{path}.suspend", "cannot be true with enableInTreeAutoscaling")


@rule("gcs-ft", "GCS fault tolerance is set up in gcsFaultToleranceOptions alone", kinds=RAY_KINDS)
def check_gcs_ft(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        env, params = head_env(cluster), start_params(cluster.head)
        head = f"{cluster.path}.headGroupSpec"
        annotated = cluster.annotations.get("ray.io/ft-enabled")
        if "gcsFaultToleranceOptions" in cluster.spec:
            yield from _gcs_ft_twice(cluster, env, params)
        elif "RAY_REDIS_ADDRESS" in env and str(annotated).lower() != "true":
            yield Problem(f"{head}.template", "RAY_REDIS_ADDRESS needs gcsFaultToleranceOptions.redisAddress instead")
        if params.get("redis-username") or "REDIS_USERNAME" in env:
            yield Problem(head, "a Redis user name belongs in gcsFaultToleranceOptions.redisUsername")


def _gcs_ft_twice(cluster: Cluster, env: dict[str, Body], params: Body) -> Iterator[Problem]:
    head = f"{cluster.path}.headGroupSpec"
    instead = "use gcsFaultToleranceOptions alone"
    for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if cluster.annotations.get(name):
            yield Problem("metadata.annotations", f"{name} cannot stand beside gcsFaultToleranceOptions; {instead}")
    for name in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD"):
        if name in env:
            yield Problem(f"{head}.template", f"{name} cannot be set with gcsFaultToleranceOptions; {instead}")
    if params.get("redis-password"):
        yield Problem(f"{head}.rayStartParams.redis-password", f"cannot be set as well; {instead}")
    options = mapping(cluster.spec["gcsFaultToleranceOptions"])
    if options.get("backend", "redis") == "redis" and "storage" in options:
        yield Problem(f"{cluster.path}.gcsFaultToleranceOptions.storage", "belongs to backend rocksdb, not redis")


@rule("feature-gates", "nothing needs a feature that KubeRay has off by default", kinds=RAY_KINDS)
def check_feature_gates(document: Document, site: Site) -> Iterator[Problem]:
    gates = {
        "networkPolicy": "RayClusterNetworkPolicy; ship a networking.k8s.io/v1 NetworkPolicy instead",
        "tlsOptions": "RayClusterMTLS",
        "historyServerOptions": "RayClusterHistoryServer",
    }
    if document.kind == "RayCronJob":
        yield Problem("kind", "needs the operator's feature gate RayCronJob; without it nothing happens")
    for cluster in clusters_of(document):
        for field, gate in gates.items():
            if field in cluster.spec:
                yield Problem(f"{cluster.path}.{field}", f"needs the operator's feature gate {gate}")
        if dig(cluster.spec, "gcsFaultToleranceOptions", "backend") == "rocksdb":
            gate = "GCSFaultToleranceEmbeddedStorage; use backend redis"
            yield Problem(f"{cluster.path}.gcsFaultToleranceOptions.backend", f"needs the feature gate {gate}")


@rule("group-names", "with the operator's own network policy, groups have names that are DNS labels", kinds=RAY_KINDS)
def check_group_names(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        for path, name, _ in cluster.groups:
            if "networkPolicy" in cluster.spec and not DNS_1123.fullmatch(name):
                yield Problem(f"{path}.groupName", f"{name!r}: at most 63 lower-case letters, digits and '-'")


@rule("autoscaler", "the autoscaler is set up in one place, and its pods are never restarted", kinds=RAY_KINDS)
def check_autoscaler(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        head, options = f"{cluster.path}.headGroupSpec", mapping(cluster.spec.get("autoscalerOptions"))
        if _v2_by_env(cluster) and not cluster.autoscaled:
            yield Problem(f"{head}.template", f"{AUTOSCALER_V2} needs enableInTreeAutoscaling: true")
        if AUTOSCALER_V2 in head_env(cluster) and cluster.autoscaled and "version" in options:
            yield Problem(f"{head}.template", f"{AUTOSCALER_V2} and autoscalerOptions.version: use the latter")
        if any(e.get("name") == "KUBERAY_GEN_AUTOSCALER_START_CMD" for _, e in entries(options.get("env"))):
            yield Problem(f"{cluster.path}.autoscalerOptions.env", "KUBERAY_GEN_AUTOSCALER_START_CMD is set by KubeRay")
        if cluster.autoscaled and autoscaler_v2(cluster):
            for path, name, group in cluster.groups:
                policy = dig(group, "template", "spec", "restartPolicy")
                if policy not in (None, "Never"):
                    where = f"{path}.template.spec.restartPolicy"
                    yield Problem(where, f"{policy} in group {name}; autoscaler v2 needs Never, or nothing")


@rule("auth", "token authentication needs a Ray version that has it", kinds=RAY_KINDS)
def check_auth(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        options = cluster.spec.get("authOptions")
        if options is None:
            continue
        path, by_kubernetes = f"{cluster.path}.authOptions", options.get("enableK8sTokenAuth") is True
        token = options.get("mode") == "token"  # said, not left to the documented default: the operator asks for that
        version = ray_version(cluster)
        if token and (version is None or version < (2, 52)):
            yield Problem(path, f"mode token needs rayVersion 2.52.0 or later, not {_version(cluster)}")
        if by_kubernetes:
            yield from _kubernetes_auth(document, path, options, version, token)


def _kubernetes_auth(
    document: Document, path: str, options: Body, version: tuple[int, ...] | None, token: bool
) -> Iterator[Problem]:
    field = f"{path}.enableK8sTokenAuth"
    if not token:
        yield Problem(field, "needs mode: token")
    if version is None or version < (2, 55):
        yield Problem(field, "needs rayVersion 2.55.0 or later")
    if options.get("secretName"):
        yield Problem(f"{path}.secretName", "cannot be set with enableK8sTokenAuth")
    if document.kind != "RayCluster":
        yield Problem(field, f"is not supported for a {document.kind}")


@rule("managed-by", "managedBy names a manager that KubeRay knows", kinds=RAY_KINDS)
def check_managed_by(document: Document, site: Site) -> Iterator[Problem]:
    places = [("spec", mapping(document.body.get("spec")))]
    places += [(path, job) for path, job in jobs_of(document) if path != "spec"]
    places += [(c.path, c.spec) for c in clusters_of(document) if c.path != "spec"]
    for path, spec in places:
        if "managedBy" in spec and spec["managedBy"] not in MANAGERS:
            yield Problem(f"{path}.managedBy", f"{spec['managedBy']!r} is not allowed; allowed: {', '.join(MANAGERS)}")


@rule("upgrade-strategy", "a RayCluster's own upgradeStrategy stands in a RayCluster only", kinds=RAY_KINDS)
def check_upgrade_strategy(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        if document.kind != "RayCluster" and dig(cluster.spec, "upgradeStrategy", "type") is not None:
            yield Problem(f"{cluster.path}.upgradeStrategy.type", f"cannot be set within a {document.kind}")


def _v2_by_env(cluster: Cluster) -> bool:
    return str(head_env(cluster).get(AUTOSCALER_V2, {}).get("value")) in ("1", "true")


def _version(cluster: Cluster) -> str:
    return repr(cluster.spec.get("rayVersion")) if "rayVersion" in cluster.spec else "a missing one"
