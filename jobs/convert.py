"""Converts preference data between formats: ours, AVERE, TRL, ms-swift, VeRL-Omni.

`avere-ray convert FROM TO [--to FORMAT]`. FROM is a data file, a folder of our records, or a run's RUN/pairs/round=K.
TO is a file, or a folder for our records; without --to a name without suffix means our records.

  --from, --to FORMAT     avere_ray (our records), avere, trl, swift, verl_omni; FROM is recognised by its rows
  --media FOLDER          what media paths in FROM are relative to; else FROM's own folder
  --relative-to FOLDER    media below it get paths relative to it in TO; else relative to TO's folder, or absolute
  --modality M            what every prompt asks about: audio, video or audio_video
  --unclear M             the same for those prompts alone that the rules are not sure of; else they are dropped
  --reject-kinds A,B      kinds of the rejects in order: hallucinated, spurious
  --ignore-system         leaves system messages out; else such rows are dropped
  --overwrite             replaces TO
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError, InputError
from avere_ray.progress import say
from jobs.operands import Arguments, run_with_arguments

OWN = Arguments(
    positions=("FROM", "TO"),
    options=("from", "to", "media", "modality", "unclear", "reject-kinds", "relative-to"),
    flags=("ignore-system", "overwrite"),
)


def run(cfg: RunConfig, given: list[str], values: dict[str, str]) -> int:
    """Converts; returns 0.

    Raises:
        ConfigError: an option is wrong.
        InputError: FROM cannot be read, or TO exists or is no name for the format.
        DropBudgetExceeded: more rows were dropped than data.drop_budget allows; nothing is written.
    """
    from avere_ray.formats import NATIVE, write_data
    from avere_ray.ledger import Ledger
    from jobs.preference_data import STAGE, format_name, open_data

    source, target = Path(given[0]), Path(given[1])
    to = format_name(values, "to", target) if "to" in values else ("" if target.suffix else NATIVE)
    if not to:
        raise ConfigError(f"{target}: name its format with --to, for instance --to trl.")
    if target.exists() and "overwrite" not in values:
        raise InputError(f"{target} exists; give another name, or --overwrite to replace it.")
    ledger = Ledger(STAGE)
    data, form = open_data(source, values, ledger)
    ledger.check_sum(data.inputs, len(data.pairs))
    ledger.check_budget(data.inputs, cfg.data.drop_budget)
    if not data.pairs:
        raise InputError(f"{source} has no pair that can be used.")
    folder = Path(values["relative-to"]) if "relative-to" in values else None
    rows = write_data(target, data, to, relative_to=folder)
    say(f"{target}: {len(data.pairs)} pairs in {rows} rows ({form} to {to}); {len(ledger.drops)} rows dropped")
    for drop in ledger.drops[:3]:
        say(f"  {drop.reason}: {drop.message}")
    return 0


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray convert`."""
    return run_with_arguments("avere-ray convert", __doc__, OWN, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
