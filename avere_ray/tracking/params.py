"""What MLflow is told about a run: its config as params, where it came from as tags, all within MLflow's limits."""

import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import avere_ray

CHANGED = "changed."
"""How a tag begins that holds the value of a param that was changed."""
_LONGEST = {"key": 250, "param": 6000, "tag": 5000}  # characters


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as MLflow params: dotted names, values as text, cut to MLflow's limits (250 and 6000)."""
    params: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            params[cut(f"{prefix}{name}", "key")] = cut(text, "param")
    return params


def source_tags() -> dict[str, str]:
    """Where a run was started from: host, its GPUs, version, and the git commit when the package lies in a checkout."""
    tags = {"host": socket.gethostname(), "gpu": _gpus(), "avere_ray.version": avere_ray.__version__}
    commit = _git("rev-parse", "HEAD")
    if commit:
        dirty = bool(_git("status", "--porcelain"))
        tags |= {"git.commit": commit, "git.dirty": str(dirty).lower(), "mlflow.source.git.commit": commit}
    return tags


def changed_tags(
    before: Mapping[str, str], params: Mapping[str, str], tags: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Tags `changed.<name>` for params that MLflow has with another value, since it never changes a param; also where
    a tag of an earlier change, among `tags`, says something else than the param now."""
    wanted = fitting_tags({f"{CHANGED}{n}": text for n, text in params.items() if n in before})
    first = fitting_tags({f"{CHANGED}{n}": before[n] for n in params if n in before})
    told = {name: (tags or {}).get(name, first[name]) for name in wanted}
    return {name: text for name, text in wanted.items() if text != told[name]}


def current_params(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The params as the run was last started with: MLflow's, with what `changed_tags` says."""
    names = {cut(f"{CHANGED}{name}", "key"): name for name in params}
    return {**params, **{names[tag]: text for tag, text in tags.items() if tag in names}}


def fitting_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags cut to MLflow's limits (250 and 5000)."""
    return {cut(name, "key"): cut(str(text), "tag") for name, text in tags.items()}


def cut(text: str, what: Literal["key", "param", "tag"]) -> str:
    """A text that MLflow takes as a key, a param or a tag."""
    return text if len(text) <= _LONGEST[what] else text[: _LONGEST[what] - 3] + "..."


def _gpus() -> str:
    """Names of this machine's NVIDIA GPUs, or "none"."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return ", ".join(line.strip() for line in done.stdout.splitlines() if line.strip()) or "none"


def _git(*arguments: str) -> str:
    """Output of a git command in the folder of the package; empty when there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
