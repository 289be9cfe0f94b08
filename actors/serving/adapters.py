"""Whether an adapter belongs to what is served, and which adapter is the champion.

The champion is looked at again now and then, by every replica for itself: first at the pointer that an administrator
left in the run folder, then at the config, which names MLflow's alias or a folder. A new one is loaded and checked in
the live engine before the name `champion` moves; requests in work go on with the one they began with. Where neither
names one any more, the name stands for nothing.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from actors.serving.tokens import Token
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig, ServeConfig
from avere_ray.errors import AvereError, InputError, ModelError
from avere_ray.records import AdapterManifest
from avere_ray.stages import file_digest, write_json

CHAMPION = "champion"
"""Model id, and alias in MLflow's registry."""
REGISTRY = "registry"
"""Value of serve.champion."""
WEIGHTS = "adapter_model.safetensors"
_POINTER = "champion.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSpec:
    """What one replica serves; every path is absolute."""

    base: str
    """Model id of the base."""
    model: ModelConfig
    rollout: RolloutConfig
    decode: DecodeConfig
    lora_rank: int
    base_digest: str
    """Digest of the base's weights, to which adapters are held."""
    adapters: Mapping[str, Path]
    """Model id to adapter folder."""
    serve: ServeConfig
    folder: Path
    """Where the server keeps the champion's pointer and weights; on a cluster, on the shared volume."""
    tracking_uri: str
    """MLflow, for serve.champion "registry"."""
    role: str | None = None
    """Role of the nodes that replicas start on, see `avere_ray.placement`."""
    tokens: tuple[Token, ...] = ()
    """Without any, this machine alone is answered."""


class Loader(Protocol):
    """What is asked of the live engine."""

    def load_adapter(self, name: str, folder: Path) -> None:
        """Makes an adapter available under a name; raises ModelError."""


def checked_adapter(folder: Path, base_digest: str, decode: DecodeConfig) -> AdapterManifest:
    """The manifest of an adapter that is whole and belongs to a base and a sampling spec.

    Raises:
        InputError: a file is missing or changed, or clips are sampled in another way than for its training.
        ModelError: it was trained on another base.
    """
    from avere_ray.learner import ADAPTER_MANIFEST
    from avere_ray.media import spec_digest

    try:
        manifest = AdapterManifest(**json.loads((folder / ADAPTER_MANIFEST).read_text(encoding="utf-8")))
        weights = file_digest(folder / WEIGHTS)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"adapter {folder} cannot be read: {error}. Train the round again.") from error
    if weights != manifest.weights_sha256:
        raise InputError(f"the weights in {folder} are not those of its manifest. Train the round again.")
    if base_digest != manifest.base_digest:
        raise ModelError(f"adapter {folder} was trained on another base than is served. Correct model.path.")
    if spec_digest(decode) != manifest.decode_spec:
        raise InputError(f"adapter {folder} was trained with other settings of data.decode. Use those of its config.")
    return manifest


class Champion:
    """Keeps the name `champion` on the adapter that it should stand for; `look` may be called from any thread."""

    def __init__(self, spec: ServeSpec, engine: Loader, fetch: Callable[[], Path] | None = None) -> None:
        """`fetch`: folder of the adapter that the registry's alias names; by default MLflow is asked."""
        self.spec = spec
        self.engine = engine
        self.name: str | None = None
        """Name in the engine of the adapter it stands for now; None while there is none."""
        self.problem: str | None = None
        """Why the last look changed nothing, or None."""
        self._fetch = fetch or self._from_registry
        self._lock = threading.Lock()

    @property
    def wanted(self) -> bool:
        """Whether the name should stand for an adapter."""
        return self.spec.serve.champion is not None or (self.spec.folder / _POINTER).is_file()

    def look(self) -> str | None:
        """Moves the champion if it should stand for another adapter, or for none; its name in the engine now.

        What fails leaves the champion as it is, and is told by `problem`.
        """
        with self._lock:
            try:
                folder = self._folder()
                if folder is None:
                    self.name = None
                else:
                    self._move(folder)
                self.problem = None
            except (AvereError, OSError) as error:
                if str(error) != self.problem:
                    _log.warning("the champion stays as it is: %s", error)
                self.problem = str(error)
            return self.name

    def point_to(self, folder: Path | None) -> str | None:
        """Lets every replica take this adapter for the champion, whatever the config says; None: what the config says.

        Raises:
            InputError: see `checked_adapter`; or the engine does not accept it.
        """
        pointer = self.spec.folder / _POINTER
        with self._lock:
            if folder is None:
                pointer.unlink(missing_ok=True)
            else:
                self._move(folder.absolute())
                write_json(pointer, {"folder": str(folder.absolute())})
        return self.look()

    def _folder(self) -> Path | None:
        """The adapter that the name should stand for; None where nobody names one."""
        pointer = self.spec.folder / _POINTER
        if pointer.is_file():
            try:
                return Path(json.loads(pointer.read_text(encoding="utf-8"))["folder"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{pointer} cannot be read: {error}. Delete it.") from error
        if self.spec.serve.champion is None:
            return None
        return self._fetch() if self.spec.serve.champion == REGISTRY else Path(self.spec.serve.champion).absolute()

    def _move(self, folder: Path) -> None:
        """Loads an adapter and lets the name stand for it; its weights decide whether it is another one."""
        try:
            resolved = folder.resolve()
        except (ValueError, RuntimeError) as error:  # a zero byte, or links in a circle
            raise InputError(f"adapter {str(folder)!r} is no path: {error}. Name a folder.") from error
        manifest = checked_adapter(resolved, self.spec.base_digest, self.spec.decode)
        name = f"{CHAMPION}-{manifest.weights_sha256[:16]}"
        if name != self.name:
            self.engine.load_adapter(name, resolved)
            self.name = name

    def _from_registry(self) -> Path:
        from avere_ray.tracking.registry import alias_of, fetch_adapter

        serve, uri = self.spec.serve, self.spec.tracking_uri
        found = alias_of(uri, serve.registered_model, CHAMPION)
        if found is None:
            raise InputError(
                f"{serve.registered_model} has no alias {CHAMPION!r} in MLflow; `avere-ray promote RUN` sets it"
            )
        return fetch_adapter(uri, found.run_id, self.spec.folder / "registry", found.digest)


def champion_card(champion: Champion) -> dict[str, Any]:
    """What the administrator is told."""
    return {"model": CHAMPION, "adapter": champion.name, "problem": champion.problem}
