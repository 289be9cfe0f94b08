"""A pause in every turn of Ray Data's execution loop, for streams whose consumers are slower than it is.

Where no task is under way because consumers have not taken what there is, the loop does not wait for anything: it turns
as fast as a core allows, beside the learners (BENCHMARKS.md).
"""

import time
from typing import Any

PAUSE_S = 0.02
"""Seconds per turn: short beside a step of training, long beside a turn of the loop (a fraction of a millisecond)."""


class Paced:
    """An execution callback as `DataContext.custom_execution_callback_classes` takes it; pauses at every step."""

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing to do."""

    def on_execution_step(self, executor: Any) -> None:
        """Lets others have the core."""
        time.sleep(PAUSE_S)

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing to do."""
