"""What KubeRay v1.7's operator refuses in jobs, services and cron jobs that the schema allows."""

import itertools
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any

import yaml

from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping, parse_yaml
from avere_ray.manifests.rules import Site, clusters_of, jobs_of, rule

JOBS = ("RayJob", "RayCronJob")
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")

_DELETION_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_CRON_NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_GO_DURATION = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+")


@rule("job-cluster", "a job has a cluster of its own, or selects one by name", kinds=JOBS)
def check_job_cluster(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        selector = mapping(spec.get("clusterSelector"))
        if "rayClusterSpec" not in spec and not selector:
            yield Problem(path, "needs rayClusterSpec or clusterSelector")
        if selector and not selector.get("ray.io/cluster"):
            yield Problem(f"{path}.clusterSelector", "must name the cluster in ray.io/cluster")
        for field in ("suspend", "backoffLimit"):
            if selector and spec.get(field):
                yield Problem(f"{path}.{field}", "cannot be set with clusterSelector")


@rule("job-suspend", "a suspended job, which is how a queue holds it, shuts its cluster down", kinds=JOBS)
def check_job_suspend(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
            yield Problem(f"{path}.suspend", "needs shutdownAfterJobFinishes: true")


@rule("job-ttl", "a time to live is not negative and needs shutdownAfterJobFinishes", kinds=JOBS)
def check_job_ttl(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        ttl = spec.get("ttlSecondsAfterFinished", 0)
        if ttl < 0:
            yield Problem(f"{path}.ttlSecondsAfterFinished", f"{ttl} is negative")
        if ttl > 0 and not spec.get("shutdownAfterJobFinishes"):
            yield Problem(f"{path}.ttlSecondsAfterFinished", "needs shutdownAfterJobFinishes: true")


@rule("job-deadlines", "deadlines are positive, and the number of retries is not negative", kinds=JOBS)
def check_job_deadlines(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        for field, least in (("activeDeadlineSeconds", 1), ("preRunningDeadlineSeconds", 1), ("backoffLimit", 0)):
            if field in spec and spec[field] < least:
                yield Problem(f"{path}.{field}", f"{spec[field]} must be {least} or more")


@rule("submission-mode", "the way of submission exists and fits the rest", kinds=JOBS)
def check_submission(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        mode = spec.get("submissionMode", "K8sJobMode")
        if mode not in SUBMISSION_MODES:
            yield Problem(f"{path}.submissionMode", f"{mode!r} is not allowed; allowed: {', '.join(SUBMISSION_MODES)}")
        if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
            yield Problem(f"{path}.backoffLimit", "cannot be above 0 in InteractiveMode")
        if mode == "SidecarMode":
            yield from _sidecar(path, spec)


def _sidecar(path: str, spec: Body) -> Iterator[Problem]:
    for field in ("clusterSelector", "submitterPodTemplate", "submitterConfig"):
        if spec.get(field):
            yield Problem(f"{path}.{field}", "cannot be set in SidecarMode")
    policy = dig(spec, "rayClusterSpec", "headGroupSpec", "template", "spec", "restartPolicy")
    if policy not in (None, "Never"):
        where = f"{path}.rayClusterSpec.headGroupSpec.template.spec.restartPolicy"
        yield Problem(where, f"{policy} is not allowed in SidecarMode; use Never, or nothing")


@rule("runtime-env", "runtimeEnvYAML is a YAML mapping", kinds=JOBS)
def check_runtime_env(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        if "runtimeEnvYAML" in spec:
            yield from _yaml_mapping(f"{path}.runtimeEnvYAML", spec["runtimeEnvYAML"])


def _yaml_mapping(path: str, text: str) -> Iterator[Problem]:
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        yield Problem(path, f"is not valid YAML: {' '.join(str(error).split())}")
        return
    if len(values) > 1 or (values and not isinstance(values[0], dict)):
        yield Problem(path, "must be one YAML mapping")


@rule("deletion-strategy", "what is deleted after a job is said in one way, in an order that can be", kinds=JOBS)
def check_deletion(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        if "deletionStrategy" not in spec:
            continue
        strategy, where = mapping(spec["deletionStrategy"]), f"{path}.deletionStrategy"
        legacy = [f for f in ("onSuccess", "onFailure") if f in strategy]
        rules = entries(strategy.get("deletionRules"))
        if legacy and rules:
            yield Problem(where, "deletionRules cannot stand beside onSuccess and onFailure")
        elif legacy:
            yield from _legacy_deletion(where, strategy, spec)
        elif rules:
            yield from _deletion_rules(where, rules, spec)
        else:
            yield Problem(where, "needs deletionRules, or both onSuccess and onFailure")


def _legacy_deletion(path: str, strategy: Body, spec: Body) -> Iterator[Problem]:
    for field in ("onSuccess", "onFailure"):
        policy = dig(strategy, field, "policy")
        if policy is None:
            yield Problem(f"{path}.{field}", "is missing or has no policy; both are needed")
        elif policy == "DeleteNone" and spec.get("shutdownAfterJobFinishes"):
            yield Problem(f"{path}.{field}", "DeleteNone contradicts shutdownAfterJobFinishes")
        else:
            yield from _policy_fits(f"{path}.{field}", policy, spec)


def _policy_fits(path: str, policy: str, spec: Body) -> Iterator[Problem]:
    if spec.get("clusterSelector") and policy in ("DeleteCluster", "DeleteWorkers"):
        yield Problem(path, f"{policy} cannot be used with clusterSelector")
    if policy == "DeleteWorkers" and dig(spec, "rayClusterSpec", "enableInTreeAutoscaling") is True:
        yield Problem(path, "DeleteWorkers cannot be used with autoscaling")


def _deletion_rules(path: str, rules: list[tuple[int, Body]], spec: Body) -> Iterator[Problem]:
    if spec.get("shutdownAfterJobFinishes"):
        yield Problem(f"{path}.deletionRules", "cannot stand beside shutdownAfterJobFinishes")
    lives: dict[tuple[str, str], dict[str, int]] = {}
    for i, found in rules:
        where, condition = f"{path}.deletionRules[{i}]", mapping(found.get("condition"))
        states = [(f, str(condition[f])) for f in ("jobStatus", "jobDeploymentStatus") if f in condition]
        if len(states) != 1:
            yield Problem(f"{where}.condition", "needs exactly one of jobStatus and jobDeploymentStatus")
            continue
        yield from _policy_fits(where, str(found.get("policy")), spec)
        same = lives.setdefault(states[0], {})
        if found.get("policy") in same:
            yield Problem(where, f"{found.get('policy')} for {states[0][1]} is given twice")
        same[str(found.get("policy"))] = condition.get("ttlSeconds", 0)
    for (_, state), same in lives.items():
        yield from _in_order(f"{path}.deletionRules", state, same)


def _in_order(path: str, state: str, lives: dict[str, int]) -> Iterator[Problem]:
    ordered = [(policy, lives[policy]) for policy in _DELETION_ORDER if policy in lives]
    for (before, short), (after, long) in itertools.pairwise(ordered):
        if long < short:
            yield Problem(path, f"for {state}, {after} after {long} s comes before {before} after {short} s")


@rule("service", "a service leaves the head service's name to KubeRay and waits a positive time", kinds=("RayService",))
def check_service(document: Document, site: Site) -> Iterator[Problem]:
    for cluster in clusters_of(document):
        if dig(cluster.head, "headService", "metadata", "name"):
            yield Problem(f"{cluster.path}.headGroupSpec.headService.metadata.name", "must not be set in a RayService")
    key = "ray.io/initializing-timeout"
    timeout = str(dig(document.body, "metadata", "annotations", key) or "")
    if timeout and not (_positive(timeout)):
        yield Problem(f"metadata.annotations.{key}", f"{timeout!r} must be a positive time such as '5m', or seconds")


@rule("serve-port", "the head of a service names the port that clients ask: serve", kinds=("RayService",))
def check_serve_port(document: Document, site: Site) -> Iterator[Problem]:
    own = entries(dig(document.body, "spec", "serveService", "spec", "ports"))
    if any(port.get("name") == "serve" for _, port in own):
        return
    for cluster in clusters_of(document):
        containers = entries(dig(cluster.head, "template", "spec", "containers"))
        named = [port.get("name") for _, port in entries(containers[0][1].get("ports"))] if containers else []
        if named and "serve" not in named:  # without any port KubeRay takes its own, with this one
            yield Problem(
                f"{cluster.path}.headGroupSpec.template.spec.containers[0].ports",
                f"has {', '.join(map(str, named))}, and no serve; KubeRay makes the service from the head's ports",
            )


@rule("service-upgrade", "an upgrade strategy is complete", kinds=("RayService",))
def check_service_upgrade(document: Document, site: Site) -> Iterator[Problem]:
    strategy, path = mapping(dig(document.body, "spec", "upgradeStrategy")), "spec.upgradeStrategy"
    kind = strategy.get("type")
    if kind is not None and kind not in UPGRADES:
        yield Problem(f"{path}.type", f"{kind!r} is not allowed; allowed: {', '.join(UPGRADES)}")
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not any(cluster.autoscaled for cluster in clusters_of(document)):
        yield Problem(f"{path}.type", "an incremental upgrade needs enableInTreeAutoscaling: true")
    options = strategy.get("clusterUpgradeOptions")
    if options is None:
        yield Problem(f"{path}.clusterUpgradeOptions", "is needed for an incremental upgrade")
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    for field, value in (("maxSurgePercent", surge), ("stepSizePercent", step)):
        if not 0 <= value <= 100:
            yield Problem(f"{path}.clusterUpgradeOptions.{field}", f"{value} must be 0 to 100")
    if step > surge:
        yield Problem(f"{path}.clusterUpgradeOptions.stepSizePercent", f"{step} is above maxSurgePercent {surge}")
    if options.get("intervalSeconds", 0) <= 0:
        yield Problem(f"{path}.clusterUpgradeOptions.intervalSeconds", "must be 1 or more")
    if not options.get("gatewayClassName"):
        yield Problem(f"{path}.clusterUpgradeOptions.gatewayClassName", "is needed")


@rule("cron", "a schedule has five cron fields and no time zone of its own", kinds=("RayCronJob",))
def check_cron(document: Document, site: Site) -> Iterator[Problem]:
    schedule, zone = str(dig(document.body, "spec", "schedule")), dig(document.body, "spec", "timeZone")
    if "TZ" in schedule:
        yield Problem("spec.schedule", "cannot hold TZ or CRON_TZ; use timeZone")
    elif not valid_cron(schedule):
        yield Problem("spec.schedule", f"{schedule!r} is no cron schedule; for instance '0 3 * * *', or @daily")
    zones = zoneinfo.available_timezones()  # empty where the machine has no time zone data
    if zone is not None and zones and zone not in zones:
        yield Problem("spec.timeZone", f"{zone!r} is no time zone; for instance Europe/Berlin")


def valid_cron(schedule: str) -> bool:
    """Whether a schedule is one of five cron fields, or a name such as @daily or @every 1h."""
    if schedule.startswith("@every "):
        return bool(_GO_DURATION.fullmatch(schedule.removeprefix("@every ")))
    if schedule.startswith("@"):
        return schedule in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
    fields = schedule.split()
    return len(fields) == 5 and all(_cron_field(i, f) for i, f in enumerate(fields))


def _cron_field(index: int, text: str) -> bool:
    return all(_cron_part(index, part) for part in text.split(","))


def _cron_part(index: int, part: str) -> bool:
    span, slash, step = part.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = [_cron_number(index, end) for end in span.split("-")]
    low, high = _CRON_LIMITS[index]
    if len(ends) > 2 or any(end is None or not low <= end <= high for end in ends):
        return False
    numbers: list[Any] = ends
    return numbers == sorted(numbers)


def _cron_number(index: int, text: str) -> int | None:
    names = _CRON_NAMES.get(index, [])
    if text.lower() in names:
        return names.index(text.lower()) + _CRON_LIMITS[index][0]
    return int(text) if text.isdigit() else None


def _positive(timeout: str) -> bool:
    if _GO_DURATION.fullmatch(timeout):
        return not timeout.startswith("-") and any(c in "123456789" for c in timeout)
    return re.fullmatch(r"\+?[0-9]+", timeout) is not None and int(timeout) > 0
