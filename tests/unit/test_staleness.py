"""Rollouts of an older adapter version are refused, as far as is set."""

import pytest

from avere_ray.errors import StageError
from avere_ray.records import Rollout
from avere_ray.staleness import check_fresh


def made_by(version: int) -> list[Rollout]:
    return [Rollout(rollout_id=f"q#{i}", query_id="q", clip_id="c", index=i, text="", token_ids=(1,),
                    finish_reason="stop", adapter_version=v, seed=0)
            for i, v in enumerate((3, version))]  # fmt: skip


@pytest.mark.parametrize(("version", "max_staleness"), [(3, 0), (2, 1), (1, 2), (0, 9)])
def test_within_the_limit(version: int, max_staleness: int) -> None:
    check_fresh(made_by(version), version=3, max_staleness=max_staleness)


@pytest.mark.parametrize(
    ("version", "max_staleness", "allowed"), [(2, 0, "3 alone"), (0, 0, "3 alone"), (1, 1, "2 to 3"), (4, 1, "2 to 3")]
)
def test_beyond_it(version: int, max_staleness: int, allowed: str) -> None:
    with pytest.raises(StageError, match=rf"q#1 was sampled with adapter version {version}.*allowed is {allowed}"):
        check_fresh(made_by(version), version=3, max_staleness=max_staleness)
