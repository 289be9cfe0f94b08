"""Checks Kubernetes manifests, kustomizations and Dockerfiles without a cluster.

    avere-ray validate-manifests [PATH] [--rules=all|cluster] [--list]

PATH is cluster/ by default. `--rules=cluster` leaves out how this project runs its pods, for manifests of others;
`--list` prints every rule. Exit code 1 when something is wrong, with file, document, path and rule of each problem.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from avere_ray.errors import AvereError, ConfigError
from avere_ray.manifests.documents import Body, Problem, at, entries, mapping

DEFAULT = Path("cluster")


def run(path: Path, rules: str) -> int:
    """Prints every problem at a path; 1 when there is one.

    Raises:
        InputError: the path does not exist or cannot be read.
    """
    from avere_ray.manifests.validate import ALL_GROUPS, validate

    groups = ALL_GROUPS if rules == "all" else ("cluster",)
    report = validate(path, groups=groups, serve_check=serve_problems)  # type: ignore[arg-type]
    for finding in report.findings:
        print(finding)
    what = f"{report.documents} documents in {len(report.places)} places"
    print(f"{what}: {len(report.findings)} problems" if report.findings else f"{what}: no problems")
    return 1 if report.findings else 0


def serve_problems(config: Body) -> Iterator[Problem]:
    """What Ray Serve would refuse, or not notice, in a parsed serveConfigV2; this project's applications must build."""
    from pydantic import ValidationError
    from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

    yield from _unknown("", config, ServeDeploySchema)
    for i, application in entries(config.get("applications")):
        yield from _unknown(f"applications[{i}]", application, ServeApplicationSchema)
        for j, deployment in entries(application.get("deployments")):
            yield from _unknown(f"applications[{i}].deployments[{j}]", deployment, DeploymentSchema)
    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        for item in error.errors():
            yield Problem(at(*item["loc"]), f"{item['msg']} (given: {str(item['input'])[:60]!r})")
        return
    for i, application in entries(config.get("applications")):
        if str(application.get("import_path", "")).startswith("jobs."):
            yield from _application_problems(f"applications[{i}]", application)


def _unknown(path: str, value: Body, schema: Any) -> Iterator[Problem]:
    """Keys that Ray Serve leaves out without a word."""
    for name in sorted(set(value) - set(schema.model_fields)):
        allowed = ", ".join(sorted(schema.model_fields))
        yield Problem(at(path, name) if path else name, f"unknown field {name!r}; allowed: {allowed}")


def _application_problems(path: str, application: Body) -> Iterator[Problem]:
    """Imports the builder of an application and checks its arguments against the type it takes."""
    import importlib
    import inspect

    from pydantic import BaseModel, ValidationError

    module, _, name = str(application["import_path"]).replace(":", ".").rpartition(".")
    try:
        builder: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        yield Problem(f"{path}.import_path", f"cannot be imported: {error}")
        return
    types = [p.annotation for p in inspect.signature(builder).parameters.values()] if callable(builder) else []
    if len(types) != 1 or not (isinstance(types[0], type) and issubclass(types[0], BaseModel)):
        yield Problem(f"{path}.import_path", f"{application['import_path']} takes no typed arguments")
        return
    try:
        types[0].model_validate(mapping(application.get("args")), extra="forbid")
    except ValidationError as error:
        for item in error.errors():
            yield Problem(at(f"{path}.args", *item["loc"]), str(item["msg"]))


def arguments(argv: Sequence[str]) -> tuple[Path, str]:
    """The path and the choice of rules.

    Raises:
        ConfigError: an unknown flag, a second path, or an unknown choice.
    """
    paths, rules = [], "all"
    for argument in argv:
        if argument.startswith("--rules="):
            rules = argument.partition("=")[2]
        elif argument.startswith("-"):
            raise ConfigError(f"unknown flag {argument}; allowed: --rules=all, --rules=cluster, --list, --help")
        else:
            paths.append(Path(argument))
    if rules not in ("all", "cluster"):
        raise ConfigError(f"--rules={rules}: allowed are all and cluster")
    if len(paths) > 1:
        raise ConfigError(f"{len(paths)} paths are given; name one: {', '.join(map(str, paths))}")
    return (paths[0] if paths else DEFAULT), rules


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray validate-manifests`."""
    if any(argument in ("-h", "--help") for argument in argv):
        print(f"usage: avere-ray validate-manifests [PATH] [--rules=all|cluster] [--list]\n\n{(__doc__ or '').strip()}")
        return 0
    try:
        if "--list" in argv:
            from avere_ray.manifests.validate import rules_in_words

            print("\n".join(rules_in_words()))
            return 0
        return run(*arguments(argv))
    except AvereError as error:
        print(f"avere-ray validate-manifests: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
