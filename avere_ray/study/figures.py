"""A finished study as pictures (PNG): one per sub-score, training curves, dose and response.

The one door to matplotlib.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.study.methods import label_of
from avere_ray.study.results import METRICS, Outcome, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = ("loss", "rewards/margins", "rewards/accuracies")
ADAPTIVE = "avem_dpo_adaptive"
_INK = "#4269d0"
_PALE = "#9aa5b8"


def draw(found: Outcome, folder: Path) -> list[Path]:
    """Writes the pictures and returns their paths, in the order they are to be shown."""
    import matplotlib

    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    table = summary(found.figures)
    paths = [
        _scores(table, metric, folder)
        for metric in METRICS
        if all(metric in rows for rows in table.values())
    ]  # fmt: skip
    known = [name for name in DRAWN if any(name in rows for rows in found.curves.values())]
    if known:
        paths.append(_curves(found.curves, known, folder / "training_curves.png"))
    if ADAPTIVE in found.curves:
        paths.append(_controller(found.curves[ADAPTIVE], folder / "adaptive_text_prior.png"))
    if found.doses:
        paths.append(_doses(found.doses, folder / "dose_response.png"))
    return paths


def _scores(table: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str, folder: Path) -> Path:
    """One bar per method with every seed as a dot, and the interval of the mean."""
    import matplotlib.pyplot as plt

    methods = list(table)
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(methods) + 1))
    for place, method in enumerate(methods):
        row = table[method][metric]
        axes.barh(place, row["mean"], color=_INK if place else _PALE, height=0.6)
        if row["low"] is not None:
            axes.plot([max(0, row["low"]), min(100, row["high"])], [place, place], color="black", linewidth=1)
        axes.plot(row["per_seed"], [place] * len(row["per_seed"]), ".", color="black", markersize=4)
    axes.set_yticks(range(len(methods)), [label_of(method) for method in methods])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_title(f"{METRICS[metric]} (%)", loc="left")
    return _save(figure, [axes], folder / f"{metric}.png")


def _curves(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], names: Sequence[str], path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(1, len(names), figsize=(4.4 * len(names), 3.6), squeeze=False)
    for axes, name in zip(all_axes[0], names, strict=True):
        for method, rows in curves.items():
            points = rows.get(name, ())
            axes.plot([step for step, _ in points], [value for _, value in points], label=label_of(method), linewidth=1)
        axes.set_title(name, loc="left")
        axes.set_xlabel("optimizer step")
    all_axes[0][0].legend(fontsize=7, frameon=False)
    return _save(figure, all_axes[0], path)


def _controller(rows: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> Path:
    """What the adaptive text prior measured, and the strength that it chose, by modality."""
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.4))
    titles = ("share of the gain that the words explain", "strength gamma")
    for axes, prefix, title in zip(all_axes, ("text_prior/reliance_", "text_prior/gamma_"), titles, strict=True):
        for name, points in sorted(rows.items()):
            if name.startswith(prefix):
                steps, values = [step for step, _ in points], [value for _, value in points]
                axes.plot(steps, values, label=name.removeprefix(prefix), linewidth=1)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("optimizer step")
    all_axes[0].legend(fontsize=8, frameon=False)
    return _save(figure, all_axes, path)


def _doses(doses: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> Path:
    """Error of the base and of what each method made of it, over the strength of the bias."""
    import matplotlib.pyplot as plt

    shown = ("average_accuracy", "spurious_accuracy", "hallucination_accuracy")
    figure, all_axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.4), sharey=True)
    strengths = [float(dose) for dose in doses]
    for axes, metric in zip(all_axes, shown, strict=True):
        for method in next(iter(doses.values())):
            errors = [100 - rows[method].get(metric, float("nan")) for rows in doses.values()]
            axes.plot(strengths, errors, "o-", label=label_of(method))
        axes.set_title(f"error, {METRICS[metric]} (%)", loc="left", fontsize=9)
        axes.set_xlabel("strength of the planted bias")
        axes.set_ylim(0, 100)
    all_axes[0].legend(fontsize=8, frameon=False)
    return _save(figure, all_axes, path)


def _save(figure: Any, all_axes: "Iterable[Axes]", path: Path) -> Path:
    import matplotlib.pyplot as plt

    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
