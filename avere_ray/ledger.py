"""The ledger: the one place where an input may disappear, always with a reason and within a budget."""

from collections import Counter
from collections.abc import Iterable

from avere_ray.errors import DropBudgetExceeded, StageError
from avere_ray.records import Drop


class Ledger:
    """Collects the drops of one stage and holds them against its budget."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.drops: list[Drop] = []

    def drop(self, sample_id: str, reason: str, message: str, *, size: int = 0) -> None:
        """Records that one input is left out."""
        self.drops.append(Drop(sample_id=sample_id, stage=self.stage, reason=reason, message=message, bytes=size))

    def extend(self, drops: Iterable[Drop]) -> None:
        """Records drops made elsewhere, for instance in a worker."""
        self.drops.extend(drops)

    def counts(self) -> dict[str, int]:
        """Drops by reason, most frequent first."""
        return dict(Counter(d.reason for d in self.drops).most_common())

    def check_sum(self, inputs: int, used: int) -> None:
        """Whether every input was used or dropped; `inputs` are counted where they are read.

        Raises:
            StageError: one was lost without a reason.
        """
        if inputs != used + len(self.drops):
            raise StageError(
                f"stage {self.stage}: {inputs} inputs but {used} used and {len(self.drops)} dropped; "
                "an input was lost without a reason"
            )

    @staticmethod
    def allowed(inputs: int, budget: float) -> int:
        """How many of so many inputs may be dropped."""
        return max(int(inputs * budget), 1 if budget > 0 else 0)

    def check_budget(self, inputs: int, budget: float, setting: str = "data.drop_budget") -> None:
        """Stops the run when more than `budget` (a share, 0 to 1, from that setting) of the inputs was dropped.

        One drop is always within a budget above 0, so that a small corpus survives a single bad file.

        Raises:
            DropBudgetExceeded: names the counts, the reasons and an example of each.
        """
        allowed = self.allowed(inputs, budget)
        if len(self.drops) <= allowed:
            return
        examples = {d.reason: d for d in reversed(self.drops)}
        reasons = "; ".join(
            f"{n} x {r}, for instance {examples[r].sample_id}: {examples[r].message.rstrip('.')}"
            for r, n in self.counts().items()
        )
        raise DropBudgetExceeded(
            f"stage {self.stage} dropped {len(self.drops)} of {inputs} inputs; drop_budget {budget:g} allows "
            f"{allowed}. Reasons: {reasons}. Repair or remove these inputs, or raise {setting}."
        )
