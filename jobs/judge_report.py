"""How far a judge can be trusted: its labels against those of people.

Prints accuracy, precision, recall and F1 per label, macro-F1, the confusion table, accuracy by kind of response, and
whether verdicts depend on the order of choices, sentences or responses. With --against also the agreement with another
judge (Cohen's kappa): a backend, or a file that an earlier report wrote with --out.

By default the rules judge on the development part of the shipped set. The llm judge takes its settings (model,
endpoint, budget) from --config and overrides such as --judge.endpoint.url=...; its replies are kept in cache.folder, so
that a report that was stopped goes on; the omni judge watches clips, which the
shipped set does not have: compare its labels as a file.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.errors import ConfigError
from jobs.arguments import Parser, run_with

if TYPE_CHECKING:
    from avere_ray.judges.labelled import Labelled
    from avere_ray.judges.report import JudgeReport
    from avere_ray.protocols import JudgeFn

_BACKENDS = ("rules", "llm")


def run(args: argparse.Namespace, overrides: Sequence[str] = ()) -> int:
    """Judges the set and prints the report.

    Raises:
        ConfigError: the judge cannot be used here, or its settings are wrong.
        InputError: the set or the file of labels cannot be used.
    """
    from avere_ray.judges.labelled import PARTS, read_labelled, shipped
    from avere_ray.judges.report import measure, read_labels

    named = args.labelled is not None
    parts = PARTS if args.part == "all" else (args.part,)
    examples = read_labelled(args.labelled) if named else [e for part in parts for e in shipped(part)]
    judge = _judge(args.judge, args.config, overrides, examples)
    other = None
    if args.against is not None:
        path = Path(args.against)
        other = (args.against, _judge(args.against, args.config, overrides, examples)) if (
            args.against in _BACKENDS) else (path.name, read_labels(path))  # fmt: skip
    report = measure(examples, judge, against=other, name=str(args.labelled) if named else f"shipped, {args.part}")
    if args.out is not None:
        _write(args.out, examples, report)
    if args.json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        from jobs.judge_tables import print_report

        print_report(report)
    return 0


def _judge(backend: str, config: Path | None, overrides: Sequence[str], examples: "Sequence[Labelled]") -> "JudgeFn":
    """The judge of that name; the cue lexicon is that of the set's clips."""
    from avere_ray.config import load_config
    from avere_ray.verdicts import corpus_lexicon

    if backend not in _BACKENDS:
        raise ConfigError(
            f"judge {backend!r} cannot be asked here; allowed are {', '.join(_BACKENDS)}. The omni judge watches "
            "clips: give its labels as a file with --against"
        )
    cfg = load_config(config, [*overrides, f"--judge.backend={backend}"], prog="avere-ray judge-report")
    from avere_ray.judges.choose import make_judge
    from jobs.layout import verdict_path

    return make_judge(cfg.judge, corpus_lexicon(e.clip for e in examples), cache=verdict_path(cfg))


def _write(path: Path, examples: "Sequence[Labelled]", report: "JudgeReport") -> None:
    from avere_ray.rows import write_rows

    write_rows(path, [{"id": e.id, "label": v.label.value, "judge": v.judge, "confidence": v.confidence,
                       "emotion": v.emotion, "evidence": v.evidence, "cited": [dataclasses.asdict(c) for c in v.cited]}
                      for e, v in zip(examples, report.verdicts, strict=True)])  # fmt: skip


def parser() -> Parser:
    """The arguments of `avere-ray judge-report`."""
    made = Parser("avere-ray judge-report", __doc__)
    made.add_argument("--judge", default="rules", metavar="NAME", help="rules (default) or llm")
    made.add_argument("--labelled", type=Path, metavar="FILE", help="your own labelled set, .jsonl")
    made.add_argument(
        "--part", choices=("dev", "test", "fresh", "all"), default="dev", help="part of the shipped set (dev)"
    )
    made.add_argument("--against", metavar="JUDGE|FILE", help="another judge, or a file written with --out")
    made.add_argument("--out", type=Path, metavar="FILE", help="write the verdicts, .jsonl or .json")
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    made.add_argument("--config", type=Path, metavar="FILE", help="settings of the judges; overrides follow with dots")
    return made


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    dotted = [a for a in argv if a.startswith("--") and "." in a.split("=")[0]]
    plain = [a for a in argv if a not in dotted]
    return run_with(parser(), lambda args: run(args, dotted), plain)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
