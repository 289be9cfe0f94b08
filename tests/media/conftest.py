"""One thread for torch in every test of this tier."""

from tests.threads import one_thread

__all__ = ["one_thread"]
