"""Each heavy library is imported in one place, so that it can be replaced, pinned and kept out of `--help`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("avere_ray", "actors", "jobs")

DOORS: dict[str, tuple[str, ...]] = {
    "vllm": ("avere_ray/engine/",),
    "deepspeed": ("avere_ray/learner/",),
    "ray.train": ("avere_ray/learner/",),
    "ray.data": ("avere_ray/data.py",),
    "ray": ("actors/", "jobs/", "avere_ray/data.py", "avere_ray/learner/"),
    "transformers": ("avere_ray/backbones/",),
    "peft": ("avere_ray/backbones/",),
    "tokenizers": ("avere_ray/backbones/",),
    "mlflow": ("avere_ray/tracking/",),
    "jsonschema": ("avere_ray/manifests/schemas.py",),
    "pyarrow.fs": ("avere_ray/remote.py",),
    "av": ("avere_ray/media/", "avere_ray/synthetic/"),
    "matplotlib": ("avere_ray/study/figures.py",),
}


def imported_modules(source: str) -> set[str]:
    """Every module a file imports, at the top or inside a function, and what it uses as an attribute of `ray`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names.update(_imports(node))
    return names


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ray":
        yield f"ray.{node.attr}"


def door_of(module: str) -> str | None:
    """The most specific library of DOORS that a module belongs to."""
    owners = [library for library in DOORS if module == library or module.startswith(f"{library}.")]
    return max(owners, key=len, default=None)


def breaches(path: str, source: str) -> list[str]:
    """What a file imports past the doors, in words."""
    found = {library for module in imported_modules(source) if (library := door_of(module)) is not None}
    return [
        f"{library} is imported by {path}; go through {' or '.join(DOORS[library])}"
        for library in sorted(found)
        if not path.startswith(DOORS[library])
    ]


def test_every_heavy_library_goes_through_its_door() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert files
    found = [b for f in files for b in breaches(f.relative_to(ROOT).as_posix(), f.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("actors/judge.py", "import vllm", "vllm is imported by actors/judge.py; go through avere_ray/engine/"),
        ("avere_ray/verdicts.py", "def f():\n    from ray import data", "ray.data is imported by"),
        ("jobs/train.py", "import ray.train.torch", "go through avere_ray/learner/"),
        ("jobs/decode.py", "import ray\nray.data.range(3)", "go through avere_ray/data.py"),
        ("jobs/doctor.py", "import importlib\nimportlib.import_module('transformers')", "avere_ray/backbones/"),
        ("avere_ray/engine/omni.py", "import ray", "go through actors/ or jobs/"),
    ],
)
def test_a_breach_names_the_library_the_file_and_the_door(path: str, source: str, expected: str) -> None:
    assert expected in "\n".join(breaches(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("avere_ray/engine/omni.py", "from vllm import LLM"),
        ("actors/rollout.py", "import ray\nRolloutActor = ray.remote(object)"),
        ("avere_ray/environment.py", "CODE = 'import deepspeed'"),
        ("avere_ray/tracking/mlflow_run.py", "from mlflow.tracking import MlflowClient"),
        ("jobs/serve.py", "import average"),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, source: str) -> None:
    assert breaches(path, source) == []
