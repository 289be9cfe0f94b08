"""The console script: `avere-ray <verb> [--config FILE] [--setting=value ...]`.

Each verb is the module of the same name in `jobs`; only the one asked for is imported.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

VERBS: dict[str, str] = {
    "pipeline": "the whole loop: clips, rounds of preference learning, evaluation before and after",
    "decode": "clips to frames and waveforms",
    "build-preferences": "decoded clips to rollouts, verdicts and preference pairs",
    "train": "preference pairs to an adapter",
    "evaluate": "base or adapter to scores on the held-out questions",
    "serve": "answers questions about clips over HTTP with an adapter",
    "ask": "one question about one clip: the answer, its cues, and what it rests on",
    "synth": "writes synthetic clips with known cues, and their questions",
    "tiny-base": "trains the tiny base model from nothing",
    "submit": "sends a run to a Ray cluster, follows it, and returns its exit code",
    "validate-manifests": "checks Kubernetes manifests and Dockerfiles without a cluster",
    "doctor": "checks this machine and this config before a run, and says what to do",
    "track": "sends to MLflow what a run could not send itself",
    "score": "figures of predictions on disk, without a model or media",
    "judge-report": "how far a judge can be trusted: its labels against those of people",
    "reproduce": "compares preference-learning methods on the synthetic world, over seeds",
    "compare": "runs side by side: figures with intervals, paired tests, questions that flipped",
    "leaderboard": "what was measured, from MLflow, and what others published",
    "promote": "makes a run's adapter the champion in MLflow's registry, if no task got worse",
    "ledger": "what each stage of a run used and dropped, and why",
    "validate": "reads a whole data set without training, and says what cannot be used",
    "convert": "preference data from one format to another",
    "inspect": "one pair of preference data: prompt, responses, media as a picture",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code; 2 when the verb is unknown or missing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import avere_ray

        print(avere_ray.__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(_unknown(verb), file=sys.stderr)
        return 2
    module = importlib.import_module(f"jobs.{verb.replace('-', '_')}")
    return module.main(rest)


def usage() -> str:
    """The text shown by `avere-ray --help`."""
    width = max(len(verb) for verb in VERBS)
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    head = "usage: avere-ray <verb> [--config FILE] [--setting=value ...]"
    return "\n".join([head, "", "verbs:", *lines, "", "`avere-ray <verb> --help` shows every setting."])


def _unknown(verb: str) -> str:
    close = difflib.get_close_matches(verb.replace("_", "-"), VERBS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"avere-ray: unknown verb {verb!r}; {hint}Allowed: {', '.join(VERBS)}."


if __name__ == "__main__":
    sys.exit(main())
