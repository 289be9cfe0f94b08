"""Submits a run to a Ray cluster and follows it; the exit code is the job's.

    avere-ray submit --config FILE [--setting=value ...] [--verb=pipeline] [--overlay=DIR] [--address=URL]
                     [--submission-id=ID] [--manifest=FILE] [--dry-run]

It takes along this checkout's code and the resolved config, and nothing else. The same code and config give the same
submission id: submitting again follows the job that is running; when it failed or was stopped, it starts another
attempt, which continues from the shared run_dir. `--overlay` checks the manifests, and that what the config asks for
fits the worker groups. `--manifest` writes a RayJob instead, for `kubectl apply -f`. `--dry-run` only says what would
happen. The token is read from RAY_AUTH_TOKEN, as Ray does.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from avere_ray.config import RunConfig
from avere_ray.errors import AvereError, ConfigError, InputError
from avere_ray.progress import say
from avere_ray.stages import digest, write_text
from jobs.command import run_command
from jobs.job_server import ADDRESS, Plan, connect, submit_and_follow
from jobs.package import CONFIG, build

VERBS = ("pipeline", "decode", "build-preferences", "train", "evaluate")

_FLAGS = ("verb", "overlay", "address", "submission-id", "manifest")


def run(cfg: RunConfig, flags: dict[str, str], named: Path | None, overrides: Sequence[str]) -> int:
    """Does, or with `dry-run` only says, what the flags ask for; returns the job's exit code.

    Raises:
        ConfigError: a flag is wrong, or the config does not fit the overlay.
        InputError: the checkout or the overlay cannot be used.
        ClusterError: Ray does not answer or refuses the job.
    """
    plan = make_plan(cfg, flags)
    if "overlay" in flags:
        check_overlay(cfg, plan.verb, Path(flags["overlay"]), manifest="manifest" in flags)
    if "manifest" in flags:
        body = manifest(cfg, plan, flags, named, overrides)
        if "dry-run" in flags:
            say(f"submit: would write {flags['manifest']}\n{yaml.safe_dump(body, sort_keys=False)}")
        else:
            write_text(Path(flags["manifest"]), yaml.safe_dump(body, sort_keys=False))
            say(f"submit: wrote {flags['manifest']}; start it with: kubectl apply -f {flags['manifest']}")
        return 0
    if "dry-run" in flags:
        say(in_words(cfg, plan))
        return 0
    limit_s = cfg.ray.connect_timeout_s
    return submit_and_follow(connect(plan.address, limit_s), plan, patience_s=limit_s)


def make_plan(cfg: RunConfig, flags: dict[str, str]) -> Plan:
    """The submission that a config and flags stand for; nothing is sent.

    Raises:
        ConfigError: an unknown verb, a bad id, or a run_dir that only one machine sees.
        InputError: see `jobs.package.build`.
    """
    from avere_ray.manifests.validate import repository

    verb = flags.get("verb", "pipeline")
    if verb not in VERBS:
        raise ConfigError(f"--verb={verb}: allowed are {', '.join(VERBS)}")
    if not cfg.run_dir.is_absolute():
        raise ConfigError(
            f"run_dir is {cfg.run_dir}, relative to a folder that goes with the job; "
            "name one that every node sees, for instance --run_dir=/mnt/avere/runs/mine"
        )
    root = repository(Path.cwd())
    if root is None:
        raise InputError(f"{Path.cwd()} is in no checkout of avere_ray; run this where pyproject.toml and jobs/ are")
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


def check_overlay(cfg: RunConfig, verb: str, overlay: Path, *, manifest: bool) -> None:
    """Whether an overlay's manifests are right and have room for what a config asks for.

    Raises:
        ConfigError: a rule is broken, or a stage finds no room.
        InputError: the overlay cannot be rendered, or has no cluster to submit to.
    """
    from avere_ray.manifests.kustomize import render
    from avere_ray.manifests.rules import clusters_of
    from avere_ray.manifests.validate import validate
    from avere_ray.manifests.workloads import worker_groups
    from avere_ray.placement import unmet

    found = validate(overlay).findings
    if found:
        raise ConfigError(
            f"{overlay} has {len(found)} problems, the first: {found[0]}. See avere-ray validate-manifests."
        )
    wanted = ("RayJob", verb) if manifest else ("RayCluster", None)
    clusters = [
        c for d in render(overlay) if d.kind == wanted[0] and wanted[1] in (None, d.name) for c in clusters_of(d)
    ]
    if not clusters:
        raise InputError(f"{overlay} has no {wanted[0]}{f' {verb}' if manifest else ''} to submit to")
    missing = unmet(cfg, verb, worker_groups(clusters[0]))
    if missing:
        raise ConfigError(f"the config does not fit {overlay}: {'; '.join(missing)}")


def manifest(
    cfg: RunConfig, plan: Plan, flags: dict[str, str], named: Path | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """The overlay's RayJob of the verb, with this config: the file in the image, and the same overrides.

    Raises:
        ConfigError: there is no overlay, or the config is not part of the image.
    """
    from avere_ray.manifests.kustomize import render
    from avere_ray.manifests.workloads import IMAGE_ROOT

    if "overlay" not in flags:
        raise ConfigError("--manifest needs --overlay, whose RayJob it is made from")
    resolved = named.resolve() if named is not None else None
    if resolved is None or not resolved.is_relative_to(plan.package.root / "jobs"):
        raise ConfigError("--manifest needs a --config of jobs/configs, since the job finds its config in the image")
    inside = IMAGE_ROOT / resolved.relative_to(plan.package.root)
    body = next(d.body for d in render(Path(flags["overlay"])) if (d.kind, d.name) == ("RayJob", plan.verb))
    words = [f"python -m jobs.{plan.verb.replace('-', '_')} --config {inside}", *overrides]
    if not any(o.startswith("--run_dir=") for o in overrides):
        words.append(f"--run_dir={cfg.run_dir}")
    name = plan.submission_id.lower().replace("_", "-").replace(".", "-")[:47].strip("-")
    metadata = {**body["metadata"], "name": name}
    made = {**body, "metadata": metadata, "spec": {**body["spec"], "entrypoint": " ".join(words)}}
    _check_manifest(made, Path(flags["overlay"]))
    return made


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
