"""What runs on a cluster: entrypoints and their configs exist, state outlives pods, and what is asked for fits.

An entrypoint is `python -m jobs.<verb>` or `avere-ray <verb>`, with `--config` and overrides. `placement` in the config
says which groups a stage may use, by their role label; see `avere_ray.placement`.
"""

import functools
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import yaml

import avere_ray
from avere_ray.config import RunConfig, load_config, with_equals
from avere_ray.errors import ConfigError
from avere_ray.manifests.clusters import start_params
from avere_ray.manifests.documents import Body, Document, Problem, dig, entries, mapping, parse_yaml
from avere_ray.manifests.places import IMAGE_ROOT, misplaced, unmounted
from avere_ray.manifests.pods import Pod, pods_of, quantity, resources
from avere_ray.manifests.rules import RAY_KINDS, Cluster, Site, clusters_of, jobs_of, rule
from avere_ray.placement import ROLE_LABEL, Bundle, NodeGroup, demands, unmet

IMAGE = "avere-ray"
"""Repository of this project's image, without a registry; tags are `<version>-cpu` and `<version>-gpu`."""
GPU = "nvidia.com/gpu"
TIME_TO_GROW_S = 900.0
"""Seconds that a job must be ready to wait for a group without pods: a node is bought, and pulls the image."""

_SHELL_SIGNS = ";|&$`<>()\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrypoint:
    """A command of this project."""

    verb: str
    config: str | None
    overrides: tuple[str, ...]


def parse_entrypoint(command: str) -> Entrypoint:
    """A command line as verb, config and overrides, each as `--setting=value`.

    Raises:
        ValueError: it is no command of this project, or a shell would change it; the text says what is allowed.
    """
    words = _plain_words(command)
    if words[:1] == ["avere-ray"] and len(words) > 1:
        verb, rest = words[1], words[2:]
    elif words[:2] in (["python", "-m"], ["python3", "-m"]) and words[2:3] and words[2].startswith("jobs."):
        verb, rest = words[2].removeprefix("jobs.").replace("_", "-"), words[3:]
    else:
        allowed = "`python -m jobs.<verb> --config FILE [--setting=value ...]`"
        raise ValueError(f"{command!r} is no command of this project; use {allowed}")
    try:
        settings = with_equals(rest)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    configs = [word.partition("=")[2] for word in settings if word.partition("=")[0] == "--config"]
    overrides = tuple(word for word in settings if word.partition("=")[0] != "--config")
    return Entrypoint(verb=verb, config=configs[-1] if configs else None, overrides=overrides)


def _plain_words(command: str) -> list[str]:
    """The words of a command that stay what they are in two shells: KubeRay's line, and the one Ray starts drivers in.

    Raises:
        ValueError: a sign would be read by one of them, quoted or not, since the second gets the words without quotes.
    """
    words = shlex.split(command)
    found = [sign for sign in _SHELL_SIGNS if sign in command.strip()]
    found += ["'"] if any("'" in word for word in words) else []
    if found:
        raise ValueError(
            f"{command!r} must be one simple command, since KubeRay puts it into a shell line and Ray starts it in "
            f"another; leave out {' '.join(map(repr, found))}"
        )
    return words


@rule(
    "entrypoint",
    "a job runs a verb of this project with a config that loads",
    kinds=("RayJob", "RayCronJob"),
    group="house",
)
def check_entrypoint(document: Document, site: Site) -> Iterator[Problem]:
    for path, spec in jobs_of(document):
        try:
            entrypoint = parse_entrypoint(str(spec.get("entrypoint", "")))
            if site.root is not None:
                check_verb(entrypoint, site.root)
                load_entrypoint_config(entrypoint, site.root)
        except (ValueError, ConfigError) as error:
            yield Problem(f"{path}.entrypoint", str(error))


@rule(
    "external-state",
    "what a job reads and writes lies in the image or on a claim that every pod mounts",
    kinds=("RayJob",),
    group="house",
)
def check_external_state(document: Document, site: Site) -> Iterator[Problem]:
    for path, entrypoint, cfg in _loaded_jobs(document, site):
        if not any(o.startswith("--run_dir=") for o in entrypoint.overrides):
            yield Problem(f"{path}.entrypoint", "must set --run_dir to a folder on a claim; pods lose their disks")
        if site.root is not None:
            for sentence in misplaced(cfg, site.root):
                yield Problem(f"{path}.entrypoint", sentence)
        for sentence in off_claims(cfg, document):
            yield Problem(f"{path}.entrypoint", sentence)


@rule("fits", "what a job's config asks for fits the worker groups at full size", kinds=("RayJob",), group="house")
def check_fits(document: Document, site: Site) -> Iterator[Problem]:
    for path, entrypoint, cfg in _loaded_jobs(document, site):
        for cluster in clusters_of(document):
            for message in unmet(cfg, entrypoint.verb, worker_groups(cluster)):
                yield Problem(f"{path}.rayClusterSpec.workerGroupSpecs", message)


@rule("placed", "what reserves nothing is kept off the head by a role", kinds=("RayJob",), group="house")
def check_placed(document: Document, site: Site) -> Iterator[Problem]:
    for path, entrypoint, cfg in _loaded_jobs(document, site):
        for sentence in unplaced(cfg, entrypoint.verb):
            yield Problem(f"{path}.entrypoint", sentence)


@rule("time-to-grow", "a job waits long enough for groups that start without pods", kinds=("RayJob",), group="house")
def check_time_to_grow(document: Document, site: Site) -> Iterator[Problem]:
    for path, entrypoint, cfg in _loaded_jobs(document, site):
        for cluster in clusters_of(document):
            for sentence in impatient(cfg, entrypoint.verb, cluster):
                yield Problem(f"{path}.entrypoint", sentence)


@rule(
    "serve-config",
    "serveConfigV2 is what Ray Serve understands, and its application can be built",
    kinds=("RayService",),
    group="house",
)
def check_serve_config(document: Document, site: Site) -> Iterator[Problem]:
    path = "spec.serveConfigV2"
    try:
        values = parse_yaml(str(dig(document.body, "spec", "serveConfigV2") or ""))
    except yaml.YAMLError as error:
        yield Problem(path, f"is not valid YAML: {' '.join(str(error).split())}")
        return
    if len(values) != 1 or not isinstance(values[0], dict):
        yield Problem(path, "must be one YAML mapping with applications")
    elif site.serve_check is not None:
        for problem in site.serve_check(values[0]):
            yield Problem(f"{path}: {problem.path}" if problem.path else path, problem.message)


@rule("ray-version", "rayVersion is the version that the image installs", kinds=RAY_KINDS, group="house")
def check_ray_version(document: Document, site: Site) -> Iterator[Problem]:
    pinned = constrained_version("ray", site.root)
    for cluster in clusters_of(document):
        if pinned is not None and cluster.spec.get("rayVersion") != pinned:
            found = cluster.spec.get("rayVersion")
            yield Problem(f"{cluster.path}.rayVersion", f"{found!r} must be {pinned}, as in constraints.txt")


@rule(
    "own-image",
    "this project's image has the package's version, a Dockerfile, and GPUs only where it is built for them",
    group="house",
)
def check_own_image(document: Document, site: Site) -> Iterator[Problem]:
    for pod in pods_of(document):
        for path, container in pod.containers():
            repository, _, tag = str(container.get("image")).rpartition("/")[2].partition(":")
            if repository != IMAGE:
                if pod.role in ("head", "worker") and path.endswith(".containers[0]"):
                    yield Problem(f"{path}.image", f"the Ray container must use {IMAGE}, not {repository!r}")
                continue
            version, _, kind = tag.rpartition("-")
            if version != avere_ray.__version__:
                yield Problem(f"{path}.image", f"tag {tag!r} must start with {avere_ray.__version__}-")
            if site.root is not None and not (site.root / "cluster" / "docker" / f"{kind}.Dockerfile").is_file():
                yield Problem(f"{path}.image", f"tag {tag!r}: there is no cluster/docker/{kind}.Dockerfile")
            if GPU in resources(container, "limits") and kind != "gpu":
                yield Problem(f"{path}.image", f"asks for GPUs, but {tag!r} is built without them")


def check_verb(entrypoint: Entrypoint, root: Path) -> None:
    """Whether a verb is one that is run as a job.

    Raises:
        ValueError: the verb has no module in jobs/.
    """
    if not (root / "jobs" / f"{entrypoint.verb.replace('-', '_')}.py").is_file():
        raise ValueError(f"there is no jobs/{entrypoint.verb.replace('-', '_')}.py")


@functools.lru_cache(maxsize=64)
def load_entrypoint_config(entrypoint: Entrypoint, root: Path) -> RunConfig:
    """The config an entrypoint would run with.

    Raises:
        ConfigError: the file is not in the image, or a setting is wrong.
    """
    if entrypoint.config is None:
        return load_config(None, entrypoint.overrides)
    named = Path(entrypoint.config)
    if named.is_absolute() and not named.is_relative_to(IMAGE_ROOT):
        raise ConfigError(f"config {named} is not in the image; its repository is at {IMAGE_ROOT}")
    inside = named.relative_to(IMAGE_ROOT) if named.is_absolute() else named
    return load_config(root / inside, entrypoint.overrides)


def _loaded_jobs(document: Document, site: Site) -> Iterator[tuple[str, Entrypoint, RunConfig]]:
    """Path, entrypoint and config of each job whose config loads; the rule "entrypoint" is about the others."""
    for path, spec in jobs_of(document):
        try:
            entrypoint = parse_entrypoint(str(spec.get("entrypoint", "")))
            if site.root is not None:
                yield path, entrypoint, load_entrypoint_config(entrypoint, site.root)
        except (ValueError, ConfigError):
            continue


def constrained_version(package: str, root: Path | None) -> str | None:
    """Version of a package in constraints.txt; None when there is none."""
    file = root / "constraints.txt" if root is not None else None
    if file is None or not file.is_file():
        return None
    found = re.search(rf"(?mi)^{re.escape(package)}==(\S+)$", file.read_text(encoding="utf-8"))
    return found[1] if found else None


def off_claims(cfg: RunConfig, document: Document) -> Iterator[str]:
    """A sentence for each absolute path of a config that a head or worker of a document would not find."""
    for pod in pods_of(document):
        if pod.role in ("head", "worker"):
            who = f"group {pod.group}" if pod.group else pod.role
            for setting in unmounted(cfg, _claimed_places(pod)):
                yield f"{setting} is not on a claim that {who} mounts"


def unplaced(cfg: RunConfig, verb: str) -> Iterator[str]:
    """A sentence for each demand that reserves nothing and names no nodes: a head without CPUs has room for it."""
    for demand in dict.fromkeys(demands(cfg, verb)):
        if demand.bundle == Bundle(0, 0) and demand.role is None:
            yield f"{demand.what} reserves no CPU and no GPU, so it may start on the head; set --placement.rollout"


def impatient(cfg: RunConfig, verb: str, cluster: Cluster) -> Iterator[str]:
    """A sentence where a verb needs groups that start without pods, and does not wait long enough for them."""
    there = [mapping(g.get("labels")).get(ROLE_LABEL) for _, g in cluster.workers if cluster.least(g)]
    roles = dict.fromkeys(d.role for d in demands(cfg, verb))
    grows = [role or "any" for role in roles if (role not in there if role else not there)]
    if grows and cfg.ray.nodes_timeout_s < TIME_TO_GROW_S:
        yield (
            f"no node with role {', '.join(grows)} is there at the start; set --ray.nodes_timeout_s to "
            f"{TIME_TO_GROW_S:g} or more, not {cfg.ray.nodes_timeout_s:g}"
        )


def worker_groups(cluster: Cluster) -> list[NodeGroup]:
    """What the worker groups of a cluster offer at full size."""
    found = []
    for _, group in cluster.workers:
        nodes = group.get("maxReplicas", 0) if cluster.autoscaled else group.get("replicas", 0)
        hosts = nodes * int(group.get("numOfHosts", 1))
        role = mapping(group.get("labels")).get(ROLE_LABEL)
        found.append(NodeGroup(name=str(group.get("groupName")), role=role, node=ray_resources(group), nodes=hosts))
    return found


def ray_resources(group: Body) -> Bundle:
    """CPUs and GPUs of one node as Ray counts them: said for the group, in its start parameters, or its limits."""
    containers = entries(dig(group, "template", "spec", "containers"))
    limits = resources(containers[0][1], "limits") if containers else {}
    said, params = mapping(group.get("resources")), start_params(group)
    cpus = said.get("CPU", params.get("num-cpus", limits.get("cpu", 0)))
    gpus = said.get("GPU", params.get("num-gpus", limits.get(GPU, 0)))
    return Bundle(float(quantity(str(cpus)) or 0), float(quantity(str(gpus)) or Decimal(0)))


def _claimed_places(pod: Pod) -> list[str]:
    claims = {str(v.get("name")) for _, v in pod.volumes if "persistentVolumeClaim" in v}
    mounts: list[Mapping[str, object]] = [
        m for _, c in pod.containers(init=False)[:1] for _, m in entries(c.get("volumeMounts"))
    ]
    return [str(m.get("mountPath")) for m in mounts if m.get("name") in claims]
