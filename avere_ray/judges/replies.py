"""Replies of a model, kept by prompt and model, so that nothing is asked twice and a stopped run goes on.

One JSON object a line, appended and flushed as each reply comes; a line cut off by a kill is ignored. Several processes
may append to one file.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avere_ray.stages import digest, storage_error


class ReplyCache:
    """Replies of one model; without a folder in memory alone."""

    def __init__(self, folder: Path | None, model: str, settings: Mapping[str, Any]) -> None:
        """`settings`: what else changes a reply, for instance its longest length."""
        self._about = (model, dict(settings))
        self._known: dict[str, str] = {}
        slug = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("_")[-60:] or "model"
        self.path = None if folder is None else folder / f"{slug}-{digest(model)[:8]}.jsonl"
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, prompt: str, schema: Mapping[str, Any]) -> str | None:
        """The reply to a prompt, if it was asked before."""
        return self._known.get(self._key(prompt, schema))

    def put(self, prompt: str, schema: Mapping[str, Any], reply: str) -> None:
        """Keeps a reply, on disk before it returns.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        key = self._key(prompt, schema)
        self._known[key] = reply
        if self.path is None:
            return
        line = json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                cut = file.tell() and not self._ends_whole()
                file.write((("\n" if cut else "") + line).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _ends_whole(self) -> bool:
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _key(self, prompt: str, schema: Mapping[str, Any]) -> str:
        return digest("reply", *self._about, prompt, dict(schema))

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                self._known[row["key"]] = row["reply"]
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill; it is asked again
