"""The end of a run: what went in, what came out, and how to look at it.

`build_report` reads the manifests of the finished stages and nothing else, so a run that reused every stage reports
the same figures. `print_summary` and `print_rollout_sample` are what a person sees of it.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.environment import as_typed
from avere_ray.errors import StageError
from avere_ray.evaluation.emer import CRITERIA
from avere_ray.records import Query, Rollout, Verdict, VerdictLabel
from avere_ray.stages import StageManifest, read_manifest, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REPORT = "report.json"
AVERAGE = "average_accuracy"
TASK_SUFFIX = "_overall_accuracy"

_RATED = ("emer_", "ovmerd_")
"""What figures of rated descriptions begin with."""
_OPTIONAL = ("clips", "reference")
"""Stages that a run on clips of one's own, and one whose learner makes its reference figures itself, do not have."""
_SAMPLED = ("rollouts", "verdicts")
"""Stages that a run trained on right answers does not have."""
_ROUND_STAGES = ("rollouts", "verdicts", "pairs", "reference", "adapters")
_SAMPLE_COLUMNS = ("verdict", "clip", "task", "modality", "asked", "answered", "evidence", "confidence", "judge",
                   "rollout", "adapter_version")  # fmt: skip


def build_report(
    run_dir: Path,
    *,
    rounds: int,
    seed: int,
    mlflow_run_id: str | None = None,
    mlflow_tracking_uri: str | None = None,
    sampled: bool = True,
) -> dict[str, Any]:
    """The report of a finished run; plain values, in a fixed order.

    `sampled`: whether its pairs come from rollouts; else "rollouts" and "verdicts" are left out.

    Accuracies are in percent, seconds are those of the run in which a stage was really done. `inputs`, `used` and
    `dropped` count clips. `adapter` is relative to the run folder. `mlflow_run_id` is None until the run could be
    created on the server.

    Raises:
        StageError: a stage has not finished, or its manifest lacks a figure.
    """
    manifests = _read_stages(run_dir, rounds, () if sampled else _SAMPLED)
    clips, last = manifests["decoded"], rounds - 1

    def figures(stage: str, name: str) -> list[Any]:
        return [_figure(manifests, f"{stage}/round={k}", name) for k in range(rounds)]

    return {
        "inputs": clips.inputs,
        "used": clips.used,
        "dropped": clips.dropped,
        **({"rollouts": sum(figures("rollouts", "rollouts"))} if sampled else {}),
        **({"verdicts": _add_labels(figures("verdicts", "labels"))} if sampled else {}),
        "pairs": sum(figures("pairs", "pairs")),
        "rounds": rounds,
        "steps": sum(figures("adapters", "steps")),
        "parity_max_abs_diff": max(
            [
                *(figures("rollouts", "parity_max_abs_diff") if sampled else ()),
                _figure(manifests, f"evals/round={last}", "parity_max_abs_diff"),
            ]
        ),
        "before": _figure(manifests, "evals/before", "metrics"),
        "after": _figure(manifests, f"evals/round={last}", "metrics"),
        "mlflow_run_id": mlflow_run_id,
        "mlflow_tracking_uri": mlflow_tracking_uri,
        "adapter": figures("adapters", "adapter")[last],
        "seconds": _seconds(manifests),
        "seed": seed,
    }


def build_training_report(
    run_dir: Path, *, seed: int, mlflow_run_id: str | None = None, mlflow_tracking_uri: str | None = None
) -> dict[str, Any]:
    """The report of a run on given preference data: as `build_report`, without what it has not (rollouts, scores).

    Raises:
        StageError: a stage has not finished.
    """
    folders = ["decoded", "pairs/round=0", "reference/round=0", "adapters/round=0"]
    manifests = {name: found for name in folders if (found := read_manifest(run_dir / name)) is not None}
    if "adapters/round=0" not in manifests:
        raise StageError(f"{run_dir / 'adapters/round=0'} has not finished, so there is nothing to report yet.")
    clips = manifests["decoded"]
    return {
        "inputs": clips.inputs,
        "used": clips.used,
        "dropped": clips.dropped,
        "pairs": _figure(manifests, "pairs/round=0", "pairs"),
        "rounds": 1,
        "steps": _figure(manifests, "adapters/round=0", "steps"),
        "mlflow_run_id": mlflow_run_id,
        "mlflow_tracking_uri": mlflow_tracking_uri,
        "adapter": _figure(manifests, "adapters/round=0", "adapter"),
        "seconds": _seconds(manifests),
        "seed": seed,
    }


def write_report(run_dir: Path, report: Mapping[str, Any]) -> Path:
    """Writes `RUN/report.json` atomically and returns its path.

    Raises:
        StorageError: the file cannot be written.
    """
    path = run_dir / REPORT
    write_json(path, dict(report))
    return path


def print_summary(report: Mapping[str, Any], run_dir: Path, *, console: "Console | None" = None) -> None:
    """Prints the table before/after, the verdict counts, and the commands to look at the run and to serve it."""
    console = console or _console()
    if "before" in report and (table := _accuracy_table(report, ascii_only=not console.is_terminal)).row_count:
        console.print(table)
    for line in summary_lines(report, run_dir):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(report: Mapping[str, Any], run_dir: Path) -> list[str]:
    """What `print_summary` says below its table."""
    seconds = ", ".join(f"{stage} {s:.1f}" for stage, s in report["seconds"].items())
    differ = f"; engine and learner differ by at most {report.get('parity_max_abs_diff', 0.0):.1e} nats per token"
    return [
        f"clips: {report['inputs']} read, {report['used']} used, {report['dropped']} dropped",
        *([_verdict_line(report)] if "verdicts" in report else []),
        *_rating_lines(report.get("before", {}), report.get("after", {})),
        f"pairs: {report['pairs']}; rounds: {report['rounds']}; optimizer steps: {report['steps']}"
        + (differ if "parity_max_abs_diff" in report else ""),
        f"seconds per stage: {seconds}",
        f"report: {run_dir / REPORT}",
        *_mlflow_lines(report, run_dir),
        f"serve the adapter: {shlex.quote(as_typed('avere-ray'))} serve {shlex.quote(str(run_dir))}",
    ]


def _rating_lines(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """What descriptions were rated, before and after."""
    lines = []
    for prefix in _RATED:
        names = [name for name in before if name.startswith(prefix) and name.removeprefix(prefix) in CRITERIA]
        changes = [f"{n.removeprefix(prefix)} {before[n]:.2f} to {after[n]:.2f}" for n in names if n in after]
        lines += [f"{prefix[:-1]}, descriptions rated 1 to 10, before and after: {', '.join(changes)}"] * bool(changes)
    return lines


def _verdict_line(report: Mapping[str, Any]) -> str:
    counts = report["verdicts"]
    total = max(sum(counts.values()), 1)
    verdicts = ", ".join(f"{label} {n} ({100 * n / total:.0f} %)" for label, n in counts.items())
    return f"rollouts: {report['rollouts']}; verdicts: {verdicts}"


def choose_sample(rollouts: Iterable[Rollout], verdicts: Iterable[Verdict], k: int) -> list[tuple[Rollout, Verdict]]:
    """Up to `k` judged rollouts, one of each label in turn and then the next of each; the same for the same input."""
    judged = {verdict.rollout_id: verdict for verdict in verdicts}
    by_label: dict[str, list[tuple[Rollout, Verdict]]] = {label: [] for label in VerdictLabel}
    for rollout in sorted(rollouts, key=lambda rollout: (rollout.index, rollout.rollout_id)):
        if rollout.rollout_id in judged:
            verdict = judged[rollout.rollout_id]
            by_label[verdict.label].append((rollout, verdict))
    longest = max(len(group) for group in by_label.values())
    turns = [group[i] for i in range(longest) for group in by_label.values() if i < len(group)]
    return turns[:k]


def sample_text(rollouts: Iterable[Rollout], verdicts: Iterable[Verdict], queries: Mapping[str, Query], k: int) -> str:
    """A readable sample of rollouts with their verdicts and evidence; `queries` is by query id."""
    blocks = [
        _block(rollout, verdict, queries.get(rollout.query_id))
        for rollout, verdict in choose_sample(rollouts, verdicts, k)
    ]
    return "\n\n".join(blocks)


def sample_table(
    rollouts: Iterable[Rollout], verdicts: Iterable[Verdict], queries: Mapping[str, Query], k: int
) -> dict[str, list[Any]]:
    """The same sample as columns: what was asked of which clip, what was answered, and what the judge says of it."""
    columns: dict[str, list[Any]] = {name: [] for name in _SAMPLE_COLUMNS}
    for rollout, verdict in choose_sample(rollouts, verdicts, k):
        query = queries.get(rollout.query_id)
        row = (verdict.label.value, rollout.clip_id, query.task if query else "", query.modality if query else "",
               query.prompt if query else "", rollout.text, verdict.evidence, verdict.confidence, verdict.judge,
               rollout.rollout_id, rollout.adapter_version)  # fmt: skip
        for name, value in zip(_SAMPLE_COLUMNS, row, strict=True):
            columns[name].append(value)
    return columns


def print_rollout_sample(
    rollouts: Iterable[Rollout],
    verdicts: Iterable[Verdict],
    queries: Mapping[str, Query],
    k: int,
    *,
    console: "Console | None" = None,
) -> None:
    """Prints `sample_text`."""
    text = sample_text(rollouts, verdicts, queries, k)
    (console or _console()).print(text, markup=False, highlight=False, soft_wrap=True)


def _read_stages(run_dir: Path, rounds: int, left_out: Sequence[str] = ()) -> dict[str, StageManifest]:
    manifests = {}
    for name in _stage_folders(rounds):
        if name.split("/")[0] in left_out:
            continue
        manifest = read_manifest(run_dir / name)
        if manifest is not None:
            manifests[name] = manifest
        elif _is_needed(name, rounds):
            raise StageError(
                f"{run_dir / name} has not finished, so there is nothing to report yet. "
                "Run the pipeline again: finished stages are reused."
            )
    return manifests


def _is_needed(folder: str, rounds: int) -> bool:
    """Of the evaluations after rounds, the last one alone is."""
    stage, _, round_ = folder.partition("/round=")
    return stage not in _OPTIONAL and (stage != "evals" or round_ == str(rounds - 1))


def _stage_folders(rounds: int) -> list[str]:
    in_rounds = [f"{stage}/round={k}" for k in range(rounds) for stage in (*_ROUND_STAGES, "evals")]
    return ["clips", "decoded", "evals/before", *in_rounds]


def _figure(manifests: Mapping[str, StageManifest], folder: str, name: str) -> Any:
    summary = manifests[folder].summary
    if name not in summary:
        raise StageError(
            f"the manifest of {folder} has no {name!r} in its summary ({', '.join(summary) or 'empty'}). "
            "It was written by another version; delete the folder and run the stage again."
        )
    return summary[name]


def _add_labels(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {label.value: sum(count.get(label.value, 0) for count in counts) for label in VerdictLabel}


def _seconds(manifests: Mapping[str, StageManifest]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for name, manifest in manifests.items():
        stage = name.split("/")[0]
        seconds[stage] = round(seconds.get(stage, 0.0) + manifest.seconds, 3)
    return seconds


def _mlflow_lines(report: Mapping[str, Any], run_dir: Path) -> list[str]:
    uri, run_id = report["mlflow_tracking_uri"], report["mlflow_run_id"]
    if not uri:
        return []
    if run_id is None:
        command = f"{shlex.quote(as_typed('avere-ray'))} track {shlex.quote(str(run_dir))}"
        return [f"MLflow: not sent yet; `{command}` sends it when {uri} answers"]
    if uri.startswith(("http://", "https://")):
        return [f"look at it in MLflow: {uri} (run {run_id})"]
    command = f"{shlex.quote(as_typed('mlflow'))} ui --backend-store-uri {shlex.quote(uri)} --host 127.0.0.1"
    return [f"look at it in MLflow: {command} (run {run_id})"]


def _accuracy_table(report: Mapping[str, Any], *, ascii_only: bool) -> "Table":
    from rich import box
    from rich.table import Table

    before, after = report["before"], report["after"]
    table = Table(title="accuracy on held-out clips, percent", box=box.ASCII if ascii_only else box.ROUNDED)
    for column in ("task", "before", "after", "change"):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
    rated = [n for n in before if n.startswith(_RATED)]
    for name in [n for n in before if n.endswith(TASK_SUFFIX)] + [AVERAGE] * (AVERAGE in before or not rated):
        is_average = name == AVERAGE
        table.add_row(
            "average" if is_average else name.removesuffix(TASK_SUFFIX),
            *_accuracy_cells(before.get(name), after.get(name)),
            style="bold" if is_average else "",
        )
    return table


def _accuracy_cells(before: float | None, after: float | None) -> tuple[str, str, str]:
    if before is None or after is None:
        return _cell(before), _cell(after), "-"
    return _cell(before), _cell(after), f"{after - before:+.1f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _block(rollout: Rollout, verdict: Verdict, query: Query | None) -> str:
    about = f"{query.modality}, {query.task}" if query else "query not found"
    lines = [f"[{verdict.label.value}] clip {rollout.clip_id} ({about})"]
    if query is not None:
        lines.append(f"  asked:    {' '.join(query.prompt.split())}")
    lines.append(f"  answered: {' '.join(rollout.text.split()) or '(nothing)'}")
    lines.append(f"  evidence: {verdict.evidence}")
    return "\n".join(lines)


def _console() -> "Console":
    from rich.console import Console

    return Console()
