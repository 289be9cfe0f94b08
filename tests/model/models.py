"""Where the tests find the tiny base."""

from pathlib import Path

import avere_ray


def tiny_base() -> Path:
    """The tiny base that ships with the package."""
    return Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"
