"""What stops a run before the optimizer steps, and what it says."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lossmaker import random_batch
from pairmaker import make_pair

from avere_ray.config import LossConfig
from avere_ray.errors import ModelError, TrainingError
from avere_ray.learner import guard
from avere_ray.learner.job import ADAPTER_MANIFEST, TrainJob
from avere_ray.learner.meters import Sums
from avere_ray.learner.objective import start_tolerance
from avere_ray.learner.trainer import check_start
from avere_ray.losses import make_objective

PAIRS = [make_pair(0, 2), make_pair(1, 2)]


def test_a_gradient_that_is_not_finite_names_the_micro_batch_it_came_from() -> None:
    """The loss is finite: sqrt at 0 has an infinite slope."""
    weight = torch.nn.Parameter(torch.zeros(3))
    watch = guard.Watch([weight])
    with watch.micro_batch(PAIRS[:1]):
        (weight * 2).sum().backward()
    assert watch.bad == {}
    with watch.micro_batch(PAIRS[1:]):
        weight.sqrt().sum().backward()
    assert watch.bad == {"pair001": "gradient"}


def test_a_loss_that_is_not_finite_is_named_before_its_gradients() -> None:
    watch = guard.Watch([])
    watch.losses(torch.tensor([0.5, float("nan")]), PAIRS)
    watch.bad["pair000"] = "gradient"
    with pytest.raises(TrainingError, match=r"the loss is not finite at step 4 for pair\(s\) pair001;.*not taken"):
        guard.refuse(watch.bad, step=4)


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_too_little_memory_names_the_pairs_and_the_setting(error: BaseException) -> None:
    watch = guard.Watch([])
    words = r"pair000, pair001\. Lower train\.micro_pairs.*2 pairs"
    with pytest.raises(TrainingError, match=words), watch.micro_batch(PAIRS):
        raise error
    with pytest.raises(TrainingError, match=r"Lower train\.max_prompt_tokens"), watch.micro_batch(PAIRS[:1]):
        raise error


@pytest.mark.parametrize("error", NO_MEMORY)
def test_too_little_memory_for_the_optimizer_names_the_pairs_and_the_setting(error: BaseException) -> None:
    words = r"optimizer step of pair\(s\) pair000, pair001\. .*lower train\.lora_rank.*train\.offload_optimizer"
    with pytest.raises(TrainingError, match=words), guard.optimizer_step(PAIRS):
        raise error
    many = [make_pair(n, 2) for n in range(7)]
    with pytest.raises(TrainingError, match=r"pair004 and 2 more\."), guard.optimizer_step(many):
        raise error


def test_another_runtime_error_is_not_taken_for_memory() -> None:
    for watched in (guard.Watch([]).micro_batch(PAIRS), guard.optimizer_step(PAIRS)):
        with pytest.raises(RuntimeError, match="connection reset"), watched:
            raise RuntimeError("connection reset by peer")


def test_a_loss_of_step_0_that_is_not_the_identity_is_refused() -> None:
    expected = torch.tensor([3 * 0.6931472, 0.6931472])
    watch = guard.Watch([])
    watch.identity(expected + torch.tensor([9e-4, 2e-3]), expected, PAIRS, 1e-3)
    assert list(watch.bad) == ["pair001"]
    with pytest.raises(TrainingError, match=r"its own reference.*pair001.*0\.695147 instead of 0\.693147"):
        guard.refuse(watch.bad, step=0)


KINDS_OF_LOSS = [{}, {"form": "ipo"}, {"form": "hinge"}, {"kind": "mdpo"}, {"kind": "mod_dpo_pp"},
                 {"kind": "vista_dpo"}, {"kind": "dpo", "beta": 0.5, "sft_weight": 1.0}]  # fmt: skip


@pytest.mark.parametrize("settings", KINDS_OF_LOSS, ids=str)
@pytest.mark.parametrize("dtype", list(guard.ROUNDING))
def test_rounding_is_no_other_reference_and_another_model_is(settings: dict[str, Any], dtype: str) -> None:
    """Chosen and other log-probs are off in opposite directions: a quarter of what rounding may do, or 20 nats."""
    cfg = LossConfig.model_validate(settings)
    loss, allowed = make_objective(cfg), start_tolerance(cfg, guard.ROUNDING[dtype])
    reference, _, batch = random_batch(gamma=0.0)
    reference = dataclasses.replace(reference, kl_PY=torch.zeros_like(reference.clean_PY))
    exact, _ = loss(reference, reference, batch)

    def refused(off: float) -> int:
        chosen = torch.tensor([off, -off, -off])
        moved = {f"{name}_PY": getattr(reference, f"{name}_PY") - off for name in ("relevant", "irrelevant")}
        policy = dataclasses.replace(reference, clean_PY=reference.clean_PY + chosen, **moved)
        watch = guard.Watch([])
        watch.identity(loss(policy, reference, batch)[0], exact, [make_pair(n, 4) for n in range(4)], allowed)
        return len(watch.bad)

    assert refused(guard.ROUNDING[dtype] / 4) == 0
    assert refused(20.0) >= 3


def test_a_metric_is_averaged_over_the_pairs_it_applies_to() -> None:
    nan = float("nan")
    first, second = Sums(), Sums()
    first.add({"a": torch.tensor([1.0, nan]), "b": torch.tensor([nan, nan])}, torch.tensor([0.25, 0.25]))
    second.add({"a": torch.tensor([4.0, 100.0])}, torch.tensor([0.5, 0.0]))
    first.merge(second)
    assert first.means() == {"a": pytest.approx(3.0)}


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    paths = dict.fromkeys((f.name for f in dataclasses.fields(TrainJob) if "Path" in str(f.type)), tmp_path)
    job = TrainJob(
        **paths, source="", round=1, first_step=0, key="", base_digest="mine", decode_spec="", data_digest=""
    )
    (tmp_path / ADAPTER_MANIFEST).write_text('{"base_digest": "theirs"}')
    with pytest.raises(ModelError, match=r"another base \(digest theirs\).*digest mine"):
        check_start(job)
    (tmp_path / ADAPTER_MANIFEST).unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        check_start(job)
