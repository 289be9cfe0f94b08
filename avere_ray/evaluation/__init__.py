"""Benchmarks by name. A new one is a file with a `Scorer` (and a `Benchmark`, if a model can answer it) and a line."""

from avere_ray.evaluation.avhbench import AVHBENCH
from avere_ray.evaluation.benchmark import Benchmark, evaluate
from avere_ray.evaluation.cmm import CMM
from avere_ray.evaluation.dfew import DFEW
from avere_ray.evaluation.emer import EMER
from avere_ray.evaluation.emorealm import EMOREALM, EMOREALM_SCORER
from avere_ray.evaluation.mer2023 import MER2023
from avere_ray.evaluation.ravdess import RAVDESS
from avere_ray.evaluation.scorer import Scorer

BENCHMARKS: dict[str, Benchmark] = {EMOREALM.name: EMOREALM}
"""What a model can be asked here."""
SCORERS: dict[str, Scorer] = {
    scorer.name: scorer for scorer in (EMOREALM_SCORER, DFEW, RAVDESS, MER2023, EMER, AVHBENCH, CMM)
} | {"ovmerd": EMER}
"""What can be scored from files."""

__all__ = ["BENCHMARKS", "SCORERS", "Benchmark", "Scorer", "evaluate"]
