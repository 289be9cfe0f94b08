"""The one door to transformers and peft: one package per model family.

A family knows its prompt layout, its media features, its position ids, which modules are trained, and how its adapter
is named for the engine. To add one, write a package that offers the names of `qwen2_5_omni/__init__.py`, made of the
types in `types.py`, and name it here; nothing else in the system names a family.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from avere_ray.errors import ModelError
from avere_ray.stages import model_digest as model_digest

if TYPE_CHECKING:  # the settings are only read, so that a machine without pydantic can run the learner's benchmarks
    from avere_ray.config import ModelConfig

BACKBONES = {"qwen2_5_omni": "avere_ray.backbones.qwen2_5_omni"}
_INDEX = ".safetensors.index.json"
_NAMED = 8
"""Missing files that a message names."""


def backbone(name: str) -> ModuleType:
    """The module of a model family.

    Raises:
        ModelError: the family is unknown; names those that are known.
    """
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}; known: {', '.join(sorted(BACKBONES))}")
    return importlib.import_module(BACKBONES[name])


def load_processor(model: "ModelConfig"):  # type: ignore[no-untyped-def]
    """Tokenizer, chat template and media processing of a model folder.

    Raises:
        ModelError: see `check_model_folder`.
    """
    check_model_folder(model.path)
    return backbone(model.backbone).Processor(model.path)


def load_policy(model: "ModelConfig", *, device: str = "cpu"):  # type: ignore[no-untyped-def]
    """The model of a folder, in evaluation mode, on a device, with its processor as `.processor`.

    Raises:
        ModelError: see `check_model_folder`; or the device is not there or too small.
    """
    check_model_folder(model.path)
    kernel = None if model.attention == "auto" else model.attention
    return backbone(model.backbone).load_policy(model.path, model.dtype, attention=kernel, device=device)


def check_model_folder(path: Path, setting: str = "model.path") -> None:
    """Refuses a folder that cannot be a model, saying what is missing; `setting` is where it is named.

    Raises:
        ModelError: the folder or its config, weights or chat template is missing or unreadable, or it has not every
            file that its index of weights names.
    """
    if not path.is_dir():
        raise ModelError(
            f"model folder {path} does not exist. Set {setting} to a folder in Hugging Face format; the "
            "tiny base ships in avere_ray/synthetic/tiny_base (rebuild it with `make tiny-base`)."
        )
    try:
        names = {p.name for p in path.iterdir()}
    except OSError as error:
        raise ModelError(f"model folder {path} cannot be read: {error.strerror}. Check its permissions.") from error
    needed = {
        "config.json": {"config.json"},
        "tokenizer": {"tokenizer.json", "vocab.json", "tokenizer.model"},
        "weights": {n for n in names if n.endswith((".safetensors", _INDEX))},
    }
    missing = [what for what, options in needed.items() if not options & names]
    if missing:
        raise ModelError(
            f"model folder {path} has no {', '.join(missing)}; it is not a complete model in Hugging Face "
            "format. Copy or download the whole folder again."
        )
    _read_json(path / "config.json")
    for index in sorted(name for name in names if name.endswith(_INDEX)):
        _check_index(path / index)
    for weights in sorted(path.glob("*.safetensors")):
        _check_weights(weights)
    if not names & {"chat_template.jinja", "chat_template.json"} and not _has_template(path / "tokenizer_config.json"):
        raise ModelError(
            f"model folder {path} has no chat template (chat_template.jinja), so prompts cannot be "
            "rendered as the model was trained. Copy the template from the model's publisher."
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Copy or download the model again.") from error


def _check_index(path: Path) -> None:
    """Refuses a folder that lacks files which its index of weights names."""
    try:
        files = sorted({str(name) for name in _read_json(path)["weight_map"].values()})
    except (KeyError, TypeError, AttributeError):
        files = []
    if not files:
        raise ModelError(
            f"{path} is no index of weights: it has no weight_map from weights to files. Copy or download it again."
        )
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ModelError(
            f"model folder {path.parent} lacks {len(missing)} of the {len(files)} weights files that {path.name} "
            f"names: {', '.join(missing[:_NAMED])}{more}. Copy or download them too."
        )


def _check_weights(path: Path) -> None:
    """Holds a safetensors file's header against the file's size, without reading the weights."""
    broken = f"weights file {path} is damaged or incomplete; copy or download the model again"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if length < size else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{broken} ({error})") from error
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if not ends or 8 + length + max(ends) != size:
        raise ModelError(f"{broken}: its header promises {8 + length + max(ends, default=0)} bytes, it has {size}")


def _has_template(path: Path) -> bool:
    """Whether a tokenizer's config holds a chat template."""
    return path.is_file() and "chat_template" in _read_json(path)
