"""Sends to MLflow what a run could not send itself, because the server was away or the run was killed.

`avere-ray track RUN_DIR` uses the server that the run was tracked with; `--tracking.uri=...` names another one, which
then gets everything from the start.
"""

import sys
from collections.abc import Sequence

from avere_ray.config import RunConfig
from avere_ray.progress import say
from jobs.command import run_on_folder


def run(cfg: RunConfig) -> int:
    """Sends the rest of the run in `cfg.run_dir`; 1 when something is left.

    Raises:
        InputError: the folder holds no tracked run.
        StageError: another process is sending the metrics of this run.
    """
    from avere_ray.tracking import send_rest

    run_id, left, reason = send_rest(cfg.run_dir, cfg.tracking)
    if left or run_id is None:
        say(f"{left} events of {cfg.run_dir} are still kept: MLflow {reason}. Try again when it is back.")
        return 1
    say(f"everything of {cfg.run_dir} is in MLflow, run {run_id}")
    return 0


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray track`; a first argument without dashes is the run folder."""
    return run_on_folder("avere-ray track", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
