"""Scores of predictions on disk: same predictions, same figures. Needs no model, no media and no GPU.

Predictions are a folder with one <sample id>.txt per sample, as the released evaluator writes them, or one .json or
.jsonl file. By default answers are parsed strictly, missing and unparsable ones count as wrong and are reported, and
every figure has n and a 95 % interval from resampled clips; --legacy applies the released scorer's rules to the letter.

  emorealm   --annotations emorealm_v1.json
  world      --annotations RUN/clips/emorealm.json, the questions about clips that `avere-ray synth` drew
  dfew       --annotations set_1.csv, or the folder of the five with --fold K
  ravdess    --annotations FOLDER of clips, or a file of their names; --channel speech, song or both
             (default speech; with --legacy both)
  mer2023    --annotations test3-label.csv
  emer       --annotations track3_train_ovmerd.csv; the predictions are a judge's replies, <name>.json (also: ovmerd)
  avhbench   --annotations QA.json, or a folder of such files
  cmm        --annotations questions.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from avere_ray.errors import ConfigError
from jobs.arguments import Parser, run_with

_BENCHMARKS = ("emorealm", "world", "dfew", "ravdess", "mer2023", "emer", "ovmerd", "avhbench", "cmm")


def run(args: argparse.Namespace) -> int:
    """Prints the scores as a table, or as JSON.

    Raises:
        ConfigError: an option does not fit the benchmark.
        InputError: predictions or annotations cannot be used.
    """
    from avere_ray.evaluation import SCORERS
    from avere_ray.evaluation.scorer import ReadOptions, check_options, score_files

    scorer = SCORERS[args.benchmark]
    both = "both" if args.legacy and "channel" in scorer.options else None  # the released scorer reads what is there
    options = ReadOptions(fold=args.fold, channel=args.channel or both)
    check_options(scorer, options)
    if args.legacy and scorer.legacy is None:
        raise ConfigError(f"no released scorer of {scorer.name} is known; leave --legacy out")
    annotations = scorer.read(args.annotations, options)
    scores = score_files(scorer, annotations, scorer.responses(args.predictions), legacy=args.legacy)
    if args.json:
        print(json.dumps(scores.to_json(), indent=2, ensure_ascii=False))
    else:
        from jobs.scores_table import print_scores

        print_scores(scores)
    return 0


def parser() -> Parser:
    """The arguments of `avere-ray score`."""
    made = Parser("avere-ray score", __doc__)
    made.add_argument("benchmark", choices=_BENCHMARKS, metavar="BENCHMARK", help=", ".join(_BENCHMARKS))
    made.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="folder, .json or .jsonl file")
    made.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="the benchmark's own file")
    made.add_argument("--legacy", action="store_true", help="the released scorer's rules")
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--fold", type=int, metavar="K", help="DFEW: fold 1 to 5")
    made.add_argument("--channel", metavar="NAME", help="RAVDESS: speech, song or both")
    return made


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_with(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
