"""How this project runs pods and clusters: steady resources, restricted pods, tokens, and an end to everything."""

import re
from collections.abc import Iterator

from avere_ray.manifests.clusters import start_params
from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping
from avere_ray.manifests.pods import Pod, pods_of, resources
from avere_ray.manifests.rules import RAY_KINDS, Site, clusters_of, jobs_of, rule
from avere_ray.placement import ROLE_LABEL

_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_SCRATCH = ("/tmp",)
_SERVERS = ("Deployment", "StatefulSet")


@rule("steady-resources", "cpu and memory are requested, and limited to what is requested", group="house")
def check_steady(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            requests, limits = resources(container, "requests"), resources(container, "limits")
            for name in sorted({"cpu", "memory"} | set(requests) | set(limits)):
                if name not in requests or requests[name] != limits.get(name):
                    yield Problem(f"{path}.resources", f"{name}: set request and limit, to the same value")
    for cluster in clusters_of(document):
        if cluster.autoscaled:
            options = mapping(cluster.spec.get("autoscalerOptions"))
            if resources(options, "requests") != resources(options, "limits"):
                yield Problem(f"{cluster.path}.autoscalerOptions.resources", "set requests and limits, equal")


@rule("pinned-image", "an image has a version: a tag other than latest, or a digest", group="house")
def check_pinned(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            image = str(container.get("image"))
            tag = image.rpartition("/")[2].partition(":")[2]
            if not _DIGEST.fullmatch(image) and tag in ("", "latest", "nightly"):
                yield Problem(f"{path}.image", f"{image!r} has no version")


@rule("restricted-pod", "pods meet the restricted pod security standard, with a read-only root", group="house")
def check_restricted(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        yield from _host_access(pod)
        for path, container in pod.containers():
            yield from _restricted(pod, path, mapping(container.get("securityContext")))
            yield from _scratch(pod, path, container)
    for cluster in clusters_of(document):
        if cluster.autoscaled:
            context = mapping(dig(cluster.spec, "autoscalerOptions", "securityContext"))
            yield from _container_context(f"{cluster.path}.autoscalerOptions", context)


def _host_access(pod: Pod) -> Iterator[Problem]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield Problem(f"{pod.path}.spec.{field}", "must not be set")
    for path, volume in pod.volumes:
        if "hostPath" in volume:
            yield Problem(f"{path}.hostPath", "a pod must not use the node's files; use emptyDir or a claim")


def _restricted(pod: Pod, path: str, context: Body) -> Iterator[Problem]:
    of_pod = mapping(pod.spec.get("securityContext"))
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield Problem(f"{path}.securityContext.runAsNonRoot", "must be true, here or for the pod")
    if context.get("runAsUser", of_pod.get("runAsUser")) in (0, None):
        yield Problem(f"{path}.securityContext.runAsUser", "must be a user other than 0, here or for the pod")
    profile = dig(context, "seccompProfile", "type") or dig(of_pod, "seccompProfile", "type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield Problem(f"{path}.securityContext.seccompProfile", "type must be RuntimeDefault, here or for the pod")
    yield from _container_context(path, context)


def _container_context(path: str, context: Body) -> Iterator[Problem]:
    where = f"{path}.securityContext"
    if context.get("allowPrivilegeEscalation") is not False:
        yield Problem(f"{where}.allowPrivilegeEscalation", "must be false")
    if context.get("privileged"):
        yield Problem(f"{where}.privileged", "must not be set")
    if "ALL" not in (dig(context, "capabilities", "drop") or ()):
        yield Problem(f"{where}.capabilities.drop", "must hold ALL")
    if dig(context, "capabilities", "add"):
        yield Problem(f"{where}.capabilities.add", "must not be set")
    if context.get("readOnlyRootFilesystem") is not True:
        yield Problem(f"{where}.readOnlyRootFilesystem", "must be true, with an emptyDir where it writes")


def _scratch(pod: Pod, path: str, container: Body) -> Iterator[Problem]:
    places = {str(m.get("mountPath")).rstrip("/") for _, m in entries(container.get("volumeMounts"))}
    if dig(container, "securityContext", "readOnlyRootFilesystem") is True:
        for needed in _SCRATCH:
            if needed not in places:
                yield Problem(f"{path}.volumeMounts", f"a read-only root needs an emptyDir at {needed}")


@rule("service-account-token", "pods get no Kubernetes token, except a head that runs the autoscaler", group="house")
def check_token(document: Document, site: Site) -> Iterator[Problem]:
    autoscaled = any(cluster.autoscaled for cluster in clusters_of(document))
    for pod in pods_of(document):
        if pod.role == "head" and autoscaled:
            if not pod.spec.get("serviceAccountName"):
                yield Problem(f"{pod.path}.spec.serviceAccountName", "name an account with the rights of an autoscaler")
        elif pod.spec.get("automountServiceAccountToken") is not False:
            yield Problem(f"{pod.path}.spec.automountServiceAccountToken", "must be false")


@rule("no-secret-values", "secrets are referred to, never written down", group="house")
def check_secret_values(document: Document, site: Site) -> Iterator[Problem]:
    if document.kind == "Secret" and (document.body.get("data") or document.body.get("stringData")):
        yield Problem("data", "holds values; create the secret by hand and name it in external.yaml")
    for pod in pods_of(document):
        for path, container in pod.containers():
            for i, variable in entries(container.get("env")):
                name = str(variable.get("name"))
                if variable.get("value") and re.search(r"(TOKEN|PASSWORD|SECRET|_KEY)$", name):
                    yield Problem(f"{path}.env[{i}]", f"{name} holds a value; use valueFrom.secretKeyRef")


@rule("probes", "servers say when they are ready and whether they live", group="house", kinds=_SERVERS)
def check_probes(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers(init=False):
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield Problem(f"{path}.{probe}", "is missing")


@rule("priority", "pods have a priority class", group="house")
def check_priority_class(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        if not pod.spec.get("priorityClassName"):
            yield Problem(f"{pod.path}.spec.priorityClassName", "is missing")


@rule("token-auth", "clusters ask for a token", group="house", kinds=RAY_KINDS)
def check_token_auth(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        if dig(cluster.spec, "authOptions", "mode") != "token":
            yield Problem(f"{cluster.path}.authOptions.mode", "must be token; else whoever reaches it runs code")


@rule("idle-head", "heads do no work, so that they do not run out of memory", group="house", kinds=RAY_KINDS)
def check_idle_head(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        cpus = start_params(cluster.head).get("num-cpus", mapping(cluster.head.get("resources")).get("CPU"))
        if cpus != "0":
            yield Problem(f"{cluster.path}.headGroupSpec.rayStartParams.num-cpus", f"must be '0', not {cpus!r}")


@rule("autoscaler-v2", "a cluster that grows says which autoscaler it means: v2", group="house", kinds=RAY_KINDS)
def check_autoscaler_version(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        if cluster.autoscaled and dig(cluster.spec, "autoscalerOptions", "version") != "v2":
            yield Problem(f"{cluster.path}.autoscalerOptions.version", "must be v2")


@rule("bounded-groups", "worker groups have distinct names, a role, and written bounds", group="house", kinds=RAY_KINDS)
def check_bounded(document: Document, site: Site) -> Iterator[Problem]:
    written = next(clusters_of(Document(file="", body=document.written)), None)
    for cluster in clusters_of(document):
        names: set[str] = set()
        for (path, group), (_, as_written) in zip(cluster.workers, written.workers if written else [], strict=True):
            name = str(group.get("groupName"))
            if name in names:
                yield Problem(f"{path}.groupName", f"{name!r} is used twice")
            names.add(name)
            if not {"minReplicas", "maxReplicas"} <= set(as_written):
                yield Problem(path, f"group {name} must set minReplicas and maxReplicas; the default is unbounded")
            if mapping(group.get("labels")).get(ROLE_LABEL) is None:
                yield Problem(f"{path}.labels", f"group {name} needs {ROLE_LABEL}, which stages are placed by")
            if not cluster.autoscaled and group.get("replicas", 0) > group.get("maxReplicas", 0):
                yield Problem(f"{path}.replicas", "is above maxReplicas")


@rule("job-ends", "a job gives up, is retried, and frees its cluster", group="house", kinds=("RayJob", "RayCronJob"))
def check_job_ends(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds", "backoffLimit"):
            if not spec.get(field):
                yield Problem(f"{path}.{field}", "is missing")
        ends = spec.get("shutdownAfterJobFinishes") and spec.get("ttlSecondsAfterFinished")
        if not ends and not dig(spec, "deletionStrategy", "deletionRules"):
            yield Problem(path, "set shutdownAfterJobFinishes and ttlSecondsAfterFinished, or deletionRules")


@rule("queue", "a job for Kueue fits its limits", group="house", kinds=("RayJob", "RayCluster"))
def check_queue(document: Document, site: Site) -> Iterator[Problem]:
    if "kueue.x-k8s.io/queue-name" not in mapping(dig(document.body, "metadata", "labels")):
        return
    for path, spec in jobs_of(document):
        if not spec.get("shutdownAfterJobFinishes") or spec.get("clusterSelector"):
            yield Problem(path, "Kueue needs shutdownAfterJobFinishes: true and no clusterSelector")
    elastic = dig(document.body, "metadata", "annotations", "kueue.x-k8s.io/elastic-job") == "true"
    for cluster in clusters_of(document):
        if len(cluster.workers) > 17:
            yield Problem(f"{cluster.path}.workerGroupSpecs", "Kueue takes 17 worker groups at most")
        if cluster.autoscaled and not elastic:
            note = "needs the annotation kueue.x-k8s.io/elastic-job: 'true' under Kueue"
            yield Problem(f"{cluster.path}.enableInTreeAutoscaling", note)
