"""One thread for torch: the models here are so small that a second one only waits for the first."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Imported here, since pytest also reads this file where it only hands out the tests."""
    import torch

    torch.set_num_threads(1)
