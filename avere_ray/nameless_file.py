"""A temporary file without a name, of which nothing stays when its process is killed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from avere_ray.errors import StorageError


class NamelessFile:
    """Opens such a file in the temporary folder; `path` is where it can be read until `close`.

    Raises:
        StorageError: it cannot be opened; or, from its methods, written.
    """

    def __init__(self) -> None:
        with _errors_named():
            self._file: FileIO = tempfile.TemporaryFile(prefix="avere-ray-", buffering=0)  # type: ignore[assignment]  # noqa: SIM115
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._file.fileno()}")

    def empty(self) -> None:
        """Removes what was written."""
        with _errors_named():
            self._file.seek(0)
            self._file.truncate()

    def write(self, data: bytes) -> None:
        """Writes all of it, which a file without a buffer may do in parts."""
        left = memoryview(data)
        with _errors_named():
            while left:
                left = left[self._file.write(left) :]

    def close(self) -> None:
        """Gives up the file."""
        self._file.close()


@contextlib.contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the temporary folder"  # None: there is none that can be written
        raise StorageError(
            f"cannot write a temporary file in {folder}: {error.strerror or error}. Free some space there, or set "
            "TMPDIR to a folder on another disk, and run again."
        ) from error
