"""Submits a run to a Ray cluster and follows it; the exit code is the job's.

    avere-ray submit --config FILE [--setting=value ...] [--verb=pipeline] [--overlay=DIR] [--address=URL]
                     [--submission-id=ID] [--manifest=FILE] [--dry-run]

It takes along this checkout's code and the resolved config, and nothing else: every other path must be one that all
nodes see. The same code and config give the same submission id: submitting again follows the job that is running; when
it failed or was stopped, it starts another attempt, which continues from the shared run_dir. `--overlay` checks the
manifests, that what the config asks for fits the worker groups, and that its paths are on their claims. `--manifest`
writes a RayJob instead, for `kubectl apply -f`: the overlay's, with its settings except those given here. `--dry-run`
only says what would happen. The token is read from RAY_AUTH_TOKEN, as Ray does.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from avere_ray.config import RunConfig, load_config, with_equals
from avere_ray.errors import AvereError, ConfigError, InputError
from avere_ray.progress import say
from avere_ray.stages import digest, write_text
from jobs.command import run_command
from jobs.job_server import ADDRESS, Plan, connect, submit_and_follow
from jobs.package import CONFIG, build

VERBS = ("pipeline", "decode", "build-preferences", "train", "evaluate")

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label that puts a job into a queue of Kueue."""

_FLAGS = ("verb", "overlay", "address", "submission-id", "manifest")


def run(cfg: RunConfig, flags: dict[str, str], named: Path | None, overrides: Sequence[str]) -> int:
    """Does, or with `dry-run` only says, what the flags ask for; returns the job's exit code.

    Raises:
        ConfigError: a flag is wrong, or the config does not fit the overlay.
        InputError: the checkout or the overlay cannot be used.
        ClusterError: Ray does not answer or refuses the job.
    """
    if "manifest" in flags:
        text = yaml.safe_dump(manifest(flags, named, overrides), sort_keys=False)
        if "dry-run" in flags:
            say(f"submit: would write {flags['manifest']}\n{text}")
        else:
            write_text(Path(flags["manifest"]), text)
            say(f"submit: wrote {flags['manifest']}; start it with: kubectl apply -f {flags['manifest']}")
        return 0
    plan = make_plan(cfg, flags)
    if "overlay" in flags:
        check_overlay(cfg, plan.verb, Path(flags["overlay"]))
    if "dry-run" in flags:
        say(in_words(cfg, plan))
        return 0
    limit_s = cfg.ray.connect_timeout_s
    return submit_and_follow(connect(plan.address, limit_s), plan, patience_s=limit_s)


def make_plan(cfg: RunConfig, flags: dict[str, str]) -> Plan:
    """The submission that a config and flags stand for; nothing is sent.

    Raises:
        ConfigError: an unknown verb, a bad id, or a path that only one machine sees.
        InputError: see `jobs.package.build`.
    """
    from avere_ray.manifests.places import misplaced
    from avere_ray.manifests.validate import repository

    verb = _verb(flags)
    if not cfg.run_dir.is_absolute():
        raise ConfigError(
            f"run_dir is {cfg.run_dir}, relative to a folder that goes with the job; "
            "name one that every node sees, for instance --run_dir=/mnt/avere/runs/mine"
        )
    root = repository(Path.cwd())
    if root is None:
        raise InputError(f"{Path.cwd()} is in no checkout of avere_ray; run this where pyproject.toml and jobs/ are")
    if wrong := list(misplaced(cfg, root)):
        raise ConfigError(f"the job would not find what it needs: {'; '.join(wrong)}")
    package = build(root, cfg.to_yaml())
    name = re.sub(r"[^a-z0-9]+", "-", f"{cfg.name}-{verb}".lower()).strip("-")[:30]
    submission_id = flags.get("submission-id", f"{name}-{digest(verb, package.digest)[:10]}")
    if not re.fullmatch(r"[A-Za-z0-9][-\w.]{0,60}", submission_id):
        raise ConfigError(f"--submission-id={submission_id}: letters, digits, '.', '_' and '-' only, at most 61")
    return Plan(
        verb=verb,
        submission_id=submission_id,
        entrypoint=f"python -m jobs.{verb.replace('-', '_')} --config {CONFIG}",
        address=effective_address(flags.get("address")),
        package=package,
    )


def effective_address(given: str | None) -> str:
    """Where the job goes: `--address`, or what Ray's variables name, or this machine's port 8265.

    Raises:
        ConfigError: the flag and a variable disagree; Ray would follow the variable without a word.
    """
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        value = os.environ.get(variable)
        if value and given and value != given:
            raise ConfigError(f"--address={given} but {variable}={value}, which Ray would follow; unset one of them")
        if value:
            return value
    return given or ADDRESS


def check_overlay(cfg: RunConfig, verb: str, overlay: Path) -> None:
    """Whether an overlay's manifests are right, and its cluster has room for what a config asks for and its paths.

    Raises:
        ConfigError: a rule is broken, a stage finds no room or may start on the head, a path is on no claim, or the
            wait for nodes is too short.
        InputError: the overlay cannot be rendered, or has no cluster to submit to.
    """
    from avere_ray.manifests.kustomize import render
    from avere_ray.manifests.rules import clusters_of
    from avere_ray.manifests.validate import validate
    from avere_ray.manifests.workloads import impatient, off_claims, unplaced, worker_groups
    from avere_ray.placement import unmet

    found = validate(overlay).findings
    if found:
        raise ConfigError(
            f"{overlay} has {len(found)} problems, the first: {found[0]}. See avere-ray validate-manifests."
        )
    document = next((d for d in render(overlay) if d.kind == "RayCluster"), None)
    if document is None:
        raise InputError(f"{overlay} has no RayCluster to submit to")
    missing = [sentence for c in clusters_of(document) for sentence in unmet(cfg, verb, worker_groups(c))]
    if missing:
        raise ConfigError(f"the config does not fit {overlay}: {'; '.join(missing)}")
    if lost := list(off_claims(cfg, document)):
        raise ConfigError(f"the nodes of {overlay} would not find what the config names: {'; '.join(lost)}")
    late = [sentence for c in clusters_of(document) for sentence in impatient(cfg, verb, c)]
    if unfit := [*unplaced(cfg, verb), *late]:
        raise ConfigError(f"the config does not suit {overlay}: {'; '.join(unfit)}")


def manifest(flags: dict[str, str], named: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The overlay's RayJob of the verb with another config: the file in the image, the overlay's settings, and those
    given here, which win. It is not suspended, and waits in the queue that the overlay's own jobs wait in.

    Raises:
        ConfigError: there is no overlay, the config is not part of the image, or the job would be refused.
        InputError: the overlay cannot be rendered, or has no such job.
    """
    from avere_ray.manifests.kustomize import render
    from avere_ray.manifests.places import IMAGE_ROOT
    from avere_ray.manifests.workloads import parse_entrypoint

    if "overlay" not in flags:
        raise ConfigError("--manifest needs --overlay, whose RayJob it is made from")
    verb, overlay = _verb(flags), Path(flags["overlay"])
    jobs = {d.name: d.body for d in render(overlay) if d.kind == "RayJob"}
    if verb not in jobs:
        raise InputError(f"{overlay} has no RayJob {verb}; it has {', '.join(sorted(jobs)) or 'none'}")
    body = jobs[verb]
    settings = _merged(parse_entrypoint(body["spec"]["entrypoint"]).overrides, overrides)
    plan = make_plan(load_config(named, settings), flags)
    resolved = named.resolve() if named is not None else None
    if resolved is None or not resolved.is_relative_to(plan.package.root / "jobs"):
        raise ConfigError("--manifest needs a --config of jobs/configs, since the job finds its config in the image")
    inside = IMAGE_ROOT / resolved.relative_to(plan.package.root)
    entrypoint = shlex.join([*f"python -m jobs.{verb.replace('-', '_')} --config".split(), str(inside), *settings])
    name = plan.submission_id.lower().replace("_", "-").replace(".", "-")[:47].strip("-")
    metadata = {**body["metadata"], "name": name, **_labels(body, jobs.values())}
    spec = {name: value for name, value in body["spec"].items() if name != "suspend"}
    made = {**body, "metadata": metadata, "spec": {**spec, "entrypoint": entrypoint}}
    _check_manifest(made, overlay)
    return made


def _merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Overrides of both, each setting once; the second's win."""
    return list({word.partition("=")[0]: word for word in with_equals([*first, *with_equals(second)])}.values())


def _labels(body: dict[str, Any], jobs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Labels of a job, with the queue that a job of the same overlay waits in; none where there are none."""
    labels = dict(body["metadata"].get("labels", {}))
    if queue := next(filter(None, (job["metadata"].get("labels", {}).get(QUEUE_LABEL) for job in jobs)), None):
        labels[QUEUE_LABEL] = queue
    return {"labels": labels} if labels else {}


def _verb(flags: dict[str, str]) -> str:
    """The verb to run.

    Raises:
        ConfigError: it is none that runs on a cluster.
    """
    verb = flags.get("verb", "pipeline")
    if verb not in VERBS:
        raise ConfigError(f"--verb={verb}: allowed are {', '.join(VERBS)}")
    return verb


def _check_manifest(body: dict[str, Any], overlay: Path) -> None:
    """Holds a RayJob against every rule, beside the documents of its overlay.

    Raises:
        ConfigError: a rule is broken, for instance by a run_dir that no pod mounts.
    """
    from avere_ray.manifests.documents import Document
    from avere_ray.manifests.kustomize import render
    from avere_ray.manifests.rules import Site, run_rules
    from avere_ray.manifests.validate import ALL_GROUPS, external, repository

    job = Document(file="the manifest", body=body)
    documents = [*render(overlay), job]
    site = Site(documents=documents, given=external(overlay), root=repository(overlay))
    if found := [f for f in run_rules(documents, site, ALL_GROUPS) if f.document == job.label]:
        raise ConfigError(f"the job would be refused: {found[0]}")


def in_words(cfg: RunConfig, plan: Plan) -> str:
    """What `--dry-run` prints."""
    from avere_ray.placement import demands

    wanted = {
        f"  {d.what}, each {d.bundle}" + (f" on role {d.role}" if d.role else "") for d in demands(cfg, plan.verb)
    }
    return "\n".join(
        [
            f"submit: would send {plan.submission_id} to {plan.address}",
            f"  entrypoint: {plan.entrypoint}",
            f"  package: {len(plan.package.files) + 1} files, {plan.package.size / 2**20:.1f} MiB",
            f"  run_dir: {cfg.run_dir}",
            "asks for:",
            *sorted(wanted),
        ]
    )


def split_flags(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The flags of this verb, and the remaining arguments for the config.

    Raises:
        ConfigError: a flag has no value.
    """
    flags: dict[str, str] = {}
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        name, sign, value = argument.removeprefix("--").partition("=")
        if argument == "--dry-run":
            flags["dry-run"] = "yes"
        elif argument.startswith("--") and name in _FLAGS:
            flags[name] = value if sign else next(arguments, "")
            if not flags[name] or flags[name].startswith("--"):
                raise ConfigError(f"--{name} needs a value")
        else:
            rest.append(argument)
    return flags, rest


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray submit`."""
    from jobs.command import split_arguments

    try:
        flags, rest = split_flags(argv)
        wants_help = any(a in ("-h", "--help") for a in rest)
        named, overrides = (None, rest) if wants_help else split_arguments(rest)
    except AvereError as error:
        print(f"avere-ray submit: {error}", file=sys.stderr)
        return error.exit_code
    return run_command("avere-ray submit", __doc__, lambda cfg: run(cfg, flags, named, overrides), rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
