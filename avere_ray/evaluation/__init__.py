"""Benchmarks by name. A new one is a file with a `Scorer` (and a `Benchmark`, if a model can answer it) and a line."""

from avere_ray.evaluation import mer2023
from avere_ray.evaluation.asking import description_benchmark, emotion_benchmark, yes_no_benchmark
from avere_ray.evaluation.avhbench import AVHBENCH
from avere_ray.evaluation.benchmark import Benchmark, evaluate
from avere_ray.evaluation.cmm import CMM
from avere_ray.evaluation.dfew import DFEW
from avere_ray.evaluation.emer import EMER, OVMERD
from avere_ray.evaluation.emorealm import EMOREALM, EMOREALM_SCORER
from avere_ray.evaluation.emotions import CLASSES
from avere_ray.evaluation.mer2023 import MER2023
from avere_ray.evaluation.ravdess import RAVDESS
from avere_ray.evaluation.scorer import Scorer
from avere_ray.evaluation.world import WORLD, WORLD_SCORER

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        EMOREALM,
        WORLD,
        emotion_benchmark(DFEW, CLASSES),
        emotion_benchmark(RAVDESS, CLASSES),
        emotion_benchmark(MER2023, mer2023.CLASSES),
        yes_no_benchmark(AVHBENCH),
        yes_no_benchmark(CMM),
        description_benchmark(EMER),
        description_benchmark(OVMERD),
    )
}
"""What a model can be asked here."""
SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (EMOREALM_SCORER, WORLD_SCORER, DFEW, RAVDESS, MER2023, EMER, OVMERD, AVHBENCH, CMM)
}
"""What can be scored from files."""

__all__ = ["BENCHMARKS", "SCORERS", "Benchmark", "Scorer", "evaluate"]
