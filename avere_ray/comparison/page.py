"""A comparison as one HTML file that needs nothing else: inline SVG and pictures, no script, no network.

It follows the reader's light or dark setting. Everything that comes from a run is escaped.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from avere_ray.comparison import charts
from avere_ray.comparison.charts import Bar, color
from avere_ray.comparison.differences import Flip, Pair
from avere_ray.comparison.report import Report
from avere_ray.comparison.thumbnails import SIDE, thumbnail
from avere_ray.comparison.wording import (
    CALIBRATION_HEAD,
    GROUNDING_HEAD,
    GROUNDING_NOTE,
    PAIR_HEAD,
    RATING_HEAD,
    SEED_HEAD,
    calibration_rows,
    figure_rows,
    grounding_rows,
    other_rows,
    pair_rows,
    param_rows,
    rated_rows,
    rating_rows,
    seed_rows,
)

FLIPS = 30
"""Questions shown at most per pair and direction."""
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#8a6d00", "#3b7ea1", "#5c5c5c", "#6a3d9a")
_DARK = ("#56b4e9", "#ff9d5c", "#2fc99a", "#e69ac4", "#f0e442", "#9ad0ec", "#bdbdbd", "#c3a6e8")
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1c1e; --soft: #6b6b70; --rule: #d8d8dc; --tint: #f4f4f6;
  --good: #00704f; --bad: #b3261e; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #16171a; --ink: #ececee; --soft: #a0a0a8; --rule: #3a3b40;
  --tint: #212227; --good: #4cd3a1; --bad: #ff8a80; DARK } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 80rem;
  margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; white-space: nowrap;
  font-size: .93em; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7rem; position: sticky; left: 0;
  background: var(--paper); overflow-wrap: anywhere; } h1, h2 { overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; } .wide { overflow-x: auto; }
.better { color: var(--good); font-weight: 600; } .worse { color: var(--bad); font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; } figure { display: inline-block; margin: .4rem; }
figcaption { color: var(--soft); } .key span { display: inline-block; margin-right: 1.2rem; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
.flip { display: grid; grid-template-columns: 84px 1fr; gap: .9rem; padding: .6rem 0; }
.flip + .flip { border-top: 1px solid var(--rule); }
.flip img, .flip .none { width: 84px; height: 84px; background: var(--tint); border-radius: 4px; }
.flip p { margin: 0; } .said { color: var(--soft); } details { margin: .6rem 0; } summary { cursor: pointer; }
li { margin: .2rem 0; }
"""


def to_html(report: Report, *, picture: Callable[[Path], str | None] = thumbnail) -> str:
    """The whole comparison; `picture` gives a clip's data URI, or None where there is none."""
    title = "Comparison of " + " and ".join(column.label for column in report.columns)
    sections = [
        f"<h1>{escape(title)}</h1>",
        _key([column.label for column in report.columns]),
        _section("Accuracy, percent", _intervals(report) + _accuracy_table(report) if report.tasks else ""),
        _ratings(report),
        *(_pair(pair) for pair in report.pairs),
        *(_section(f"{group.label} over the seeds {', '.join(group.seeds)}", _table(SEED_HEAD, seed_rows(group))
                   + "<p>Mean ± standard deviation over seeds; Student's t-interval of the change.</p>")
          for group in report.seeds),
        _grounding(report),
        _section("Tasks", _radar(report)),
        _other_figures(report),
        _curves(report),
        _calibration(report),
        _settings(report),
        *(_pair_flips(pair, picture) for pair in report.pairs),
        _section("Notes", "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul>"),
    ]  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_style()}</style></head>\n<body>\n"
        + "\n".join(part for part in sections if part)
        + "\n</body></html>\n"
    )


def _style() -> str:
    def colors(values: Sequence[str]) -> str:
        return " ".join(f"--s{i}: {value};" for i, value in enumerate(values))

    return _STYLE.replace("LIGHT", colors(_LIGHT)).replace("DARK", colors(_DARK))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _key(labels: Sequence[str]) -> str:
    spans = (f'<span><i style="background:{color(i)}"></i>{escape(label)}</span>' for i, label in enumerate(labels))
    return f'<p class="key">{"".join(spans)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="{_class(cell)}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(cell: str) -> str:
    return cell if cell in ("better", "worse") else ""


def _accuracy_table(report: Report) -> str:
    return _table(["task", *(column.label for column in report.columns)], figure_rows(report))


def _other_figures(report: Report) -> str:
    if not report.other:
        return ""
    table = _table(["figure", *(column.label for column in report.columns)], other_rows(report))
    title = "Recalls, F1 both ways, share of Yes and sub-types, percent"
    return _section("Other figures", f"<details><summary>{title}</summary>{table}</details>")


def _intervals(report: Report) -> str:
    rows = {task: [Bar(*column.accuracy(task)[:3]) for column in report.columns] for task in report.tasks}
    return charts.intervals(rows, [column.label for column in report.columns])


def _radar(report: Report) -> str:
    tasks = [task for task in report.tasks if task != "average"]
    series = {column.label: [column.accuracy(task)[0] for task in tasks] for column in report.columns}
    return charts.radar(tasks, series)


def _ratings(report: Report) -> str:
    rows = rated_rows(report)
    head = ["criterion", *(column.label for column in report.columns)]
    return _section("Descriptions, rated from 1 to 10", _table(head, rows) if rows else "")


def _grounding(report: Report) -> str:
    """What each medium is worth to each run: the accuracy lost as a chart, then all figures."""
    if not report.losses:
        return ""
    labels = [column.label for column in report.columns]
    several = len({loss.benchmark for losses in report.losses.values() for loss in losses}) > 1
    bars: dict[str, list[Bar | None]] = {}
    for label, losses in report.losses.items():
        for loss in losses:
            of = f"{loss.benchmark}: " * several
            row = bars.setdefault(f"{of}{loss.mode}, about {loss.asked}", [None] * len(labels))
            interval = loss.drop.interval
            row[labels.index(label)] = Bar(loss.drop.value, interval.low, interval.high)
    ends = [end for row in bars.values() for bar in row if bar for end in (bar.low, bar.value) if math.isfinite(end)]
    lowest = min(0, 20 * math.floor(min(ends, default=0.0) / 20))
    chart = charts.intervals(bars, labels, span=(lowest, 100), title="Accuracy lost by mode with 95 % intervals")
    shown = [i for i, column in enumerate(GROUNDING_HEAD) if several or column != "benchmark"]
    rows = [[row[i] for i in shown] for row in grounding_rows(report)]
    table = _table([GROUNDING_HEAD[i] for i in shown], rows)
    return _section("Grounding: what is lost without a medium", f"<p>{escape(GROUNDING_NOTE)}</p>{chart}{table}")


def _curves(report: Report) -> str:
    """One chart per metric; colours are the runs', in the order they are named."""
    if not report.curves:
        return ""
    labels = list(dict.fromkeys(label for series in report.curves.values() for label in series))
    drawn = "".join(charts.curves(series, name) for name, series in report.curves.items())
    return _section("Training", _key(labels) + drawn)


def _calibration(report: Report) -> str:
    if not report.calibrations:
        return ""
    body = _key(list(report.calibrations)) + charts.reliability(report.calibrations)
    return _section("Calibration", body + _table(CALIBRATION_HEAD, calibration_rows(report)))


def _settings(report: Report) -> str:
    if len(report.runs) < 2:
        return ""
    if not report.params:
        return _section("Settings that differ", "<p>None.</p>")
    return _section("Settings that differ", _table(["setting", *report.run_labels], param_rows(report)))


def _pair(pair: Pair) -> str:
    title = f"{pair.second} against {pair.first}"
    if not (pair.tasks or pair.ratings):
        return _section(title, "<p>The answers of one of them are not here: nothing can be tested.</p>")
    body = _table(PAIR_HEAD, pair_rows(pair)) if pair.tasks else ""
    return _section(title, body + (_table(RATING_HEAD, rating_rows(pair)) if pair.ratings else ""))


def _pair_flips(pair: Pair, picture: Callable[[Path], str | None]) -> str:
    body, pictures = "", dict[Path, str | None]()
    for fixed, word in ((False, "broke"), (True, "fixed")):
        flips = [flip for flip in pair.flips if flip.fixed == fixed]
        if flips:
            body += _flips(flips, word, picture, pictures)
    return _section(f"Questions that flipped: {pair.second} against {pair.first}", body)


def _flips(
    flips: Sequence[Flip], word: str, picture: Callable[[Path], str | None], known: dict[Path, str | None]
) -> str:
    shown = _spread(flips)
    items = "".join(_flip(flip, _picture(flip, picture, known)) for flip in shown)
    count = f"{len(flips)} questions {word}" + (f", {len(shown)} shown" if len(shown) < len(flips) else "")
    return f"<details open><summary>{count}</summary>{items}</details>"


def _spread(flips: Sequence[Flip]) -> list[Flip]:
    """Up to FLIPS of them, taken from the tasks in turn."""
    by_task: dict[str, list[Flip]] = {}
    for flip in flips:
        by_task.setdefault(flip.question.item.task, []).append(flip)
    longest = max(len(group) for group in by_task.values())
    return [group[i] for i in range(longest) for group in by_task.values() if i < len(group)][:FLIPS]


def _picture(flip: Flip, picture: Callable[[Path], str | None], known: dict[Path, str | None]) -> str | None:
    media = flip.question.media
    if media is None:
        return None
    if media not in known:
        known[media] = picture(media)
    return known[media]


def _flip(flip: Flip, data_uri: str | None) -> str:
    item = flip.question.item
    image = '<div class="none"></div>'
    if data_uri is not None:
        image = f'<img src="{escape(data_uri)}" width="{SIDE}" height="{SIDE}" alt="{escape(item.clip_id)}">'
    words = f"{flip.question.text} {' '.join(item.choices)}"
    return (
        f'<div class="flip">{image}<div><p>{escape(words)} <span class="said">Right: {escape(item.gold)}</span></p>'
        f'<p class="said">{escape(item.task)}, {escape(item.sample_id)}</p>'
        f"<p>Was: {_quote(flip.first)}</p><p>Now: {_quote(flip.second)}</p></div></div>"
    )


def _quote(text: str) -> str:
    return escape(" ".join(text.split())[:300]) or "<em>nothing</em>"
