"""How old the policy that made a rollout may be: preference data are about the policy that is trained."""

from collections.abc import Iterable

from avere_ray.errors import StageError
from avere_ray.records import Rollout


def check_fresh(rollouts: Iterable[Rollout], *, version: int, max_staleness: int) -> None:
    """Refuses rollouts of another adapter version than `version` or one of the `max_staleness` before it.

    Raises:
        StageError: there is one; names it, its version and what is allowed.
    """
    oldest = max(0, version - max_staleness)
    for rollout in rollouts:
        if not oldest <= rollout.adapter_version <= version:
            allowed = f"{oldest} to {version}" if oldest < version else f"{version} alone"
            raise StageError(
                f"rollout {rollout.rollout_id} was sampled with adapter version {rollout.adapter_version}; with "
                f"version {version} in use and rollout.max_staleness {max_staleness}, allowed is {allowed}. Sample it "
                "again (delete the rollouts of the round), or allow older ones by rollout.max_staleness."
            )
