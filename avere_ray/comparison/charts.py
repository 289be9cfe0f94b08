"""Charts as inline SVG: no script, no font, no file; colours are CSS variables of the page (`--s0` ... `--s7`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from avere_ray.evaluation.calibration import Calibration

SERIES_COLORS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of one run; percent."""

    value: float
    low: float
    high: float


def color(index: int) -> str:
    """CSS colour of a series."""
    return f"var(--s{index % SERIES_COLORS})"


def intervals(
    rows: Mapping[str, Sequence[Bar | None]],
    names: Sequence[str],
    *,
    span: tuple[int, int] = (0, 100),
    title: str = "Accuracy by task with 95 % intervals",
) -> str:
    """Figures with intervals: a group of lines per row, one line per name; `span`: both ends of the axis."""
    left, width, step, gap, (first, last) = 190, 430, 15, 12, span
    height = sum(len(names) * step + gap for _ in rows) + 26
    ticks = [(x, left + width * (x - first) / (last - first)) for x in range(first, last + 1, 20)]
    parts = [_line(at, 4, at, height - 22, "grid") + _text(at, height - 8, str(x), "middle") for x, at in ticks]
    y = 10.0
    for task, bars in rows.items():
        parts.append(_text(left - 10, y + step * len(names) / 2, task.replace("_", " "), "end"))
        for i, bar in enumerate(bars):
            if bar is not None and not math.isnan(bar.value):
                parts.append(_bar(left, width, y + step * (i + 0.5), bar, color(i), span))
        y += step * len(names) + gap
    return _svg(left + width + 20, height, title, parts)


def curves(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> str:
    """Lines over steps, one per name."""
    width, height, left, bottom = 300.0, 170.0, 48.0, 22.0
    points = [(x, y) for line in series.values() for x, y in line if math.isfinite(y)]
    if not points:
        return ""
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = min(y for _, y in points), max(y for _, y in points)
    span_x, span_y = max(x1 - x0, 1), (y1 - y0) or 1.0

    def at(x: float, y: float) -> str:
        return (
            f"{left + (x - x0) / span_x * (width - left - 8):.1f},{8 + (y1 - y) / span_y * (height - bottom - 16):.1f}"
        )

    parts = [
        _line(left, 8, left, height - bottom, "grid"),
        _line(left, height - bottom, width - 8, height - bottom, "grid"),
    ]
    ends = [0.0 if abs(y) < 1e-3 * (y1 - y0) else y for y in (y1, y0)]
    parts.append(_text(left - 4, 14, _short(ends[0]), "end"))
    parts += [_text(left - 4, height - bottom, _short(ends[1]), "end")] if y1 > y0 else []
    parts += [_text(left, height - 6, str(x0), "start"), _text(width - 8, height - 6, str(x1), "end")]
    for i, line in enumerate(series.values()):
        path = " ".join(at(x, y) for x, y in line if math.isfinite(y))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color(i)}" stroke-width="1.6"/>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{_svg(width, height, title, parts)}</figure>"


def radar(tasks: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Accuracies from 0 (centre) to 100 around a circle; empty for fewer than three tasks."""
    if len(tasks) < 3:
        return ""
    radius, cx, cy = 130.0, 260.0, 165.0
    angles = [2 * math.pi * i / len(tasks) - math.pi / 2 for i in range(len(tasks))]

    def ring(values: Sequence[float]) -> str:
        return " ".join(
            f"{cx + radius * v / 100 * math.cos(a):.1f},{cy + radius * v / 100 * math.sin(a):.1f}"
            for v, a in zip(values, angles, strict=True)
        )

    parts = [
        f'<polygon points="{ring([level] * len(tasks))}" class="grid" fill="none"/>' for level in (25, 50, 75, 100)
    ]
    for task, angle in zip(tasks, angles, strict=True):
        parts.append(_line(cx, cy, cx + radius * math.cos(angle), cy + radius * math.sin(angle), "grid"))
        side = "middle" if abs(math.cos(angle)) < 0.2 else "start" if math.cos(angle) > 0 else "end"
        label = task.replace("_", " ")
        parts.append(_text(cx + (radius + 12) * math.cos(angle), cy + (radius + 12) * math.sin(angle) + 4, label, side))
    for i, values in enumerate(series.values()):
        shape = ring([0.0 if math.isnan(v) else v for v in values])
        parts.append(f'<polygon points="{shape}" fill="{color(i)}" fill-opacity="0.12" stroke="{color(i)}" '
                     'stroke-width="2"/>')  # fmt: skip
    lowest = cy + (radius + 12) * max(math.sin(a) for a in angles)
    return _svg(520, lowest + 16, "Accuracy of each task as a radar", parts)


def reliability(found: Mapping[str, Calibration]) -> str:
    """Share of right answers over the probability the model gave them; the diagonal is perfect."""
    side, left = 240.0, 36.0
    parts = [_line(left, side, left + side - 20, 20, "grid"), _line(left, 20, left, side, "grid"),
             _line(left, side, left + side - 20, side, "grid"), _text(left - 4, 26, "1", "end"),
             _text(left - 4, side, "0", "end"), _text(left + side - 20, side + 14, "1", "end"),
             _text(left + 6, 14, "share right", "start"),
             _text(left + (side - 20) / 2, side + 14, "probability given", "middle")]  # fmt: skip
    for i, calibration in enumerate(found.values()):
        points = [(left + b.confidence * (side - 20), side - b.accuracy * (side - 20)) for b in calibration.bins]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color(i)}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color(i)}"/>' for x, y in points]
    return _svg(left + side, side + 20, "Reliability of the probabilities", parts)


def _bar(left: float, width: float, y: float, bar: Bar, stroke: str, span: tuple[int, int]) -> str:
    x, x0, x1 = (left + width * (v - span[0]) / (span[1] - span[0]) for v in (bar.value, bar.low, bar.high))
    line = ""
    if math.isfinite(bar.low):
        line = f'<line x1="{x0:.1f}" y1="{y:.1f}" x2="{x1:.1f}" y2="{y:.1f}" stroke="{stroke}" stroke-width="3" '
        line += 'stroke-opacity="0.45"/>'
    return f'{line}<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{stroke}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 1000 else f"{value:.0f}"
