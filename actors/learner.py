"""The learner in a process of its own that trains one adapter after the other, so that it starts only once."""

from typing import Any

import ray

from avere_ray.config import RunConfig
from avere_ray.learner import TrainJob, train_alone


class LearnerWorker:
    """Trains with one worker; several of these train different adapters side by side."""

    def train(self, cfg: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
        """See `learner.train_alone`; config, job and the adapter's manifest as plain values."""
        import dataclasses

        return dataclasses.asdict(train_alone(RunConfig.model_validate(cfg), TrainJob.from_plain(job)))


LearnerActor = ray.remote(LearnerWorker)
