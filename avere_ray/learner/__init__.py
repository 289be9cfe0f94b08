"""The one door to Ray Train and DeepSpeed: pairs and their reference figures in, an adapter (or a model folder) out.

    preflight   which pairs can be trained on, how long they are, and why the others were left out
    order       seed and epoch -> every worker's share of every step -> micro-batches; nothing dropped
    stream      shares as rows of a Ray Data streaming split, with their pairs and decoded clips
    alone       one worker in this very process, for many small trainings
    trainer     Ray Train: starts the workers, starts them again after a loss, reads what they wrote
    worker      what a worker does: waits for its share, steps, logs, checkpoints, saves
    objective   pairs -> trees -> log-probs -> loss
    guard       what stops a run before the optimizer steps: values that are not finite, memory, a wrong reference
    zero        DeepSpeed: settings, accumulation, its state on disk
    checkpoints what a run needs to go on as if nothing had happened; manifest last
    explain     the first pair in words: prompt, loss mask, tree

The order depends on the seed alone, so a run with the same number of workers repeats itself, bit for bit on CPU.
Nothing here imports Ray, DeepSpeed or torch before a function needs it.
"""

from avere_ray.learner.alone import train_alone
from avere_ray.learner.job import ADAPTER_MANIFEST, MODEL_FOLDER, TrainJob
from avere_ray.learner.order import StepShare, count_steps, rate_factor, step_shares
from avere_ray.learner.trainer import run_training

__all__ = [
    "ADAPTER_MANIFEST",
    "MODEL_FOLDER",
    "StepShare",
    "TrainJob",
    "count_steps",
    "rate_factor",
    "run_training",
    "step_shares",
    "train_alone",
]
