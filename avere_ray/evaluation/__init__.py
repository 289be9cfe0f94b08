"""Benchmarks by name. A new one is a file with a `Benchmark` and a line here."""

from avere_ray.evaluation.benchmark import Benchmark, evaluate
from avere_ray.evaluation.emorealm import EMOREALM

BENCHMARKS: dict[str, Benchmark] = {EMOREALM.name: EMOREALM}

__all__ = ["BENCHMARKS", "Benchmark", "evaluate"]
