"""The command: what it looks at, what it says, and how it ends."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from avere_ray.errors import ConfigError, InputError
from avere_ray.manifests.dockerfiles import CHECKS, check_dockerfile, parse
from avere_ray.manifests.pods import quantity
from avere_ray.manifests.validate import repository, validate
from avere_ray.manifests.workloads import constrained_version, parse_entrypoint
from jobs.validate_manifests import arguments, main
from tests.unit.manifest_edits import ROOT

DOCKER = ROOT / "cluster" / "docker"
GOOD = (DOCKER / "cpu.Dockerfile").read_text()


def test_the_shipped_manifests_and_images_have_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "cluster")]) == 0
    assert "187 documents in 9 places: no problems" in capsys.readouterr().out


def test_a_manifest_of_others_is_checked_without_the_house_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, prots: []}]}\n"
    )
    assert main(["--rules=cluster", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert f"{file}: Pod/p: spec.containers[0]: unknown field 'prots'; did you mean ports? [schema]" in shown
    file.write_text(file.read_text().replace(", prots: []", ""))
    assert main(["--rules=cluster", str(file)]) == 0
    assert main([str(file)]) == 1
    assert "[restricted-pod]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nowhere"], 2, "nowhere does not exist"),
        (["--rules=some"], 2, "allowed are all and cluster"),
        (["--verbose"], 2, "unknown flag --verbose"),
        (["a", "b"], 2, "2 paths are given"),
    ],
)
def test_wrong_arguments_end_in_words(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    assert words in capsys.readouterr().err


def test_an_empty_folder_and_broken_yaml_end_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no kustomization\.yaml, no YAML file and no Dockerfile"):
        validate(tmp_path)
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"a\.yaml is not valid YAML"):
        validate(tmp_path)
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(InputError, match="a manifest is a mapping, this is a list"):
        validate(tmp_path)


def test_help_and_the_list_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "usage: avere-ray validate-manifests [PATH]" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert "deletion-strategy" in capsys.readouterr().out
    assert arguments([]) == (Path("cluster"), "all")
    with pytest.raises(ConfigError):
        arguments(["--rules"])


def test_help_imports_neither_ray_nor_jsonschema() -> None:
    code = "import sys, jobs.validate_manifests as v; "
    code += "v.main(['--help']); print(sorted({'ray','jsonschema'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_repository_is_found_from_below() -> None:
    assert repository(ROOT / "cluster" / "overlays") == ROOT
    assert repository(Path("/")) is None
    assert constrained_version("ray", ROOT) == "2.60.0"
    assert constrained_version("no-such-package", ROOT) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("8Gi", str(8 * 2**30)), (2, "2"), ("1e3", "1000"), ("1E", "1e18"), ("0.5", "0.5"), ("-1", "-1")],
)
def test_quantities(text: object, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "8 Gi", "8GB", "1.2.3", "Gi", None, True, "1ee3"])
def test_no_quantities(text: object) -> None:
    assert quantity(text) is None


def test_entrypoints_are_understood() -> None:
    found = parse_entrypoint("python -m jobs.build_preferences --config=a.yaml --seed=1 --rounds=3")
    assert (found.verb, found.config, found.overrides) == ("build-preferences", "a.yaml", ("--seed=1", "--rounds=3"))
    assert parse_entrypoint("avere-ray train --config 'b c.yaml'").config == "b c.yaml"
    spaced = parse_entrypoint("avere-ray train --config a.yaml --run_dir '/mnt/my runs/a' --seed 1")
    assert (spaced.config, spaced.overrides) == ("a.yaml", ("--run_dir=/mnt/my runs/a", "--seed=1"))


@pytest.mark.parametrize(
    "part", ["&& rm -rf x", "--name='$HOME'", "--name=`id`", '--name="it\'s"', "--name='a>b'", "--name='(a)'"]
)
def test_what_a_shell_would_change_is_no_entrypoint(part: str) -> None:
    with pytest.raises(ValueError, match="must be one simple command"):
        parse_entrypoint(f"avere-ray train {part}")


@pytest.mark.parametrize("name", ["cpu", "gpu", "mlflow"])
def test_the_shipped_dockerfiles_break_no_rule(name: str) -> None:
    assert [str(f) for f in check_dockerfile(DOCKER / f"{name}.Dockerfile", ROOT)] == []


DOCKER_MISTAKES = [
    ("docker-instructions", "USER 1000", "USR 1000"),
    ("docker-instructions", "COPY jobs jobs", "ADD jobs jobs"),
    ("docker-instructions", 'CMD ["avere-ray", "--help"]', "CMD avere-ray --help"),
    ("docker-instructions", "WORKDIR /opt/avere_ray", "WORKDIR opt"),
    ("docker-base", "python:3.11.13-slim-bookworm", "python"),
    ("docker-base", "FROM ${PYTHON} AS build", "RUN true"),
    ("docker-user", "USER 1000", "USER ray"),
    ("docker-user", "USER 1000", "USER 0"),
    ("docker-user", "USER 1000", ""),
    ("docker-apt", " --no-install-recommends", ""),
    ("docker-apt", " && rm -rf /var/lib/apt/lists/*", ""),
    ("docker-apt", "apt-get update && apt-get install -y", "sudo apt-get update && apt-get install -y"),
    ("docker-pip", "--no-cache-dir ", ""),
    ("docker-pip", "-c constraints.txt ", ""),
    ("docker-shell", 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]', "RUN ls | sort"),
    ("docker-shell", "RUN python -m venv", "RUN cd /opt && python -m venv"),
    ("docker-libraries", " libnuma1", ""),
    ("docker-secrets", "ARG VERSION=0.1.0", "ARG VERSION=0.1.0\nENV HF_TOKEN=x"),
    ("docker-copy", "COPY jobs jobs", "COPY jbs jobs"),
    ("docker-copy", "COPY jobs jobs", "COPY . ."),
    ("docker-labels", "ARG RAY=2.60.0", "ARG RAY=2.59.0"),
    ("docker-labels", 'org.opencontainers.image.licenses="Apache-2.0" \\\n', "a=b \\\n"),
]


@pytest.mark.parametrize(
    ("rule", "before", "after"), DOCKER_MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(DOCKER_MISTAKES)]
)
def test_a_mistake_in_a_dockerfile_is_found(tmp_path: Path, rule: str, before: str, after: str) -> None:
    assert before in GOOD
    file = tmp_path / "x.Dockerfile"
    file.write_text(GOOD.replace(before, after))
    found = check_dockerfile(file, ROOT)
    assert rule in {f.rule for f in found}, [str(f) for f in found]


def test_every_rule_for_dockerfiles_has_a_mistake() -> None:
    assert set(CHECKS) == {m[0] for m in DOCKER_MISTAKES}


def test_continued_lines_are_joined_and_comments_left_out() -> None:
    found = parse("# a\nRUN a && \\\n# b\n  b\n\nUSER 1\n")
    assert [(i.line, i.name, i.text) for i in found] == [(2, "RUN", "a && b"), (6, "USER", "1")]
