"""Answers a question about a clip on this machine: an engine in a child process, which can be ended at any time.

The child has its own time limit, keeps vLLM's output off the terminal, and gives all memory back when it ends.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.config import ModelConfig, RunConfig
from avere_ray.errors import ClipDecodeError, InputError, StageError
from avere_ray.records import Clip, DecodedClip
from jobs.layout import newest_adapter, stage_path

if TYPE_CHECKING:
    from avere_ray.insight import Insight, Reference

START_S = 900.0
"""Seconds an engine may take to start, beside rollout.deadline_s for each answer."""
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}

Versions = Mapping[str, tuple[Path | None, int]]
"""Model id to adapter folder and version; version 0 is the model itself."""


def ask_here(cfg: RunConfig, path: Path, question: str, *, base_too: bool, grounding: bool) -> "dict[str, Insight]":
    """What the run's newest adapter says, by model id; before it the base, if `base_too` or if there is no adapter.

    Raises:
        InputError: the clip cannot be decoded, or run, adapter or model cannot be used.
        StageError: the engine did not answer in time, or crashed.
    """
    from avere_ray.backbones import check_model_folder
    from avere_ray.synthetic.samples import default_references

    plan = engines(cfg, base_too=base_too)
    for model, _ in plan:
        check_model_folder(model.path)
    clip = decoded(path, cfg)
    references = default_references(cfg.data.decode) if grounding else []
    print("ask: starting the engine", file=sys.stderr, flush=True)
    found: dict[str, Insight] = {}
    for model, versions in plan:
        found |= _in_child(cfg, model, versions, clip, question, references, grounding)
    return found


def engines(cfg: RunConfig, *, base_too: bool) -> list[tuple[ModelConfig, Versions]]:
    """The engines needed, each with what it answers with; ids are those of `avere-ray serve`.

    Raises:
        InputError: the adapter is damaged or belongs to another base.
    """
    model = cfg.model.model_copy(update={"path": cfg.model.path.absolute()})
    base: Versions = {model.path.name: (None, 0)}
    round_ = newest_adapter(cfg)
    if round_ < 0:
        return [(model, base)]
    from actors.serving.adapters import checked_adapter
    from avere_ray.backbones import model_digest
    from avere_ray.learner import MODEL_FOLDER

    folder = stage_path(cfg, "adapters", round_)
    if (folder / MODEL_FOLDER).is_dir():  # after full fine-tuning there is no adapter
        tuned = model.model_copy(update={"path": folder / MODEL_FOLDER})
        return [*([(model, base)] if base_too else []), (tuned, {f"{model.path.name}:tuned": (None, 0)})]
    version = checked_adapter(folder, model_digest(model.path), cfg.data.decode).version
    return [(model, {**(base if base_too else {}), f"{model.path.name}:adapter-{version}": (folder, version)})]


def decoded(path: Path, cfg: RunConfig) -> DecodedClip:
    """The clip, decoded as data.decode says.

    Raises:
        InputError: there is no such file, or it cannot be decoded.
    """
    from avere_ray.decoder_child import decode_one

    try:
        return decode_one(Clip(clip_id="clip", uri=str(path.absolute())), path.parent, cfg.data.decode, cfg.data.remote)
    except ClipDecodeError as error:
        raise InputError(f"the clip cannot be used ({error.reason}): {error.message}") from error


def _in_child(
    cfg: RunConfig,
    model: ModelConfig,
    versions: Versions,
    clip: DecodedClip,
    question: str,
    references: "Sequence[Reference]",
    grounding: bool,
) -> "dict[str, Insight]":
    from avere_ray.engine import engine_threads
    from avere_ray.isolation import ChildCrashed, ChildProcess, ChildTimedOut

    limit = START_S + cfg.rollout.deadline_s * len(versions)
    threads = str(engine_threads(cfg.rollout, 1))
    os.environ.update({"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads), **_QUIET})
    child = ChildProcess()
    try:
        return child.call(limit, answer_all, cfg, model, versions, clip, question, references, grounding)
    except ChildTimedOut as error:
        raise StageError(f"the engine on {model.path} gave no answer within {limit:g} s and was ended") from error
    except ChildCrashed as error:
        raise StageError(
            f"the engine on {model.path} failed: {error}. `avere-ray doctor` checks the set-up."
        ) from error
    finally:
        child.close()


def answer_all(
    cfg: RunConfig,
    model: ModelConfig,
    versions: Versions,
    clip: DecodedClip,
    question: str,
    references: "Sequence[Reference]",
    grounding: bool,
) -> "dict[str, Insight]":
    """Starts an engine in this process and asks each version.

    Raises:
        ModelError: the model, an adapter or the request is refused by the engine.
    """
    from avere_ray.engine import Engine
    from avere_ray.engine.insight_face import InsightFace
    from avere_ray.insight import analyse

    engine = Engine(model, cfg.rollout, lora_rank=cfg.train.lora_rank, decode=cfg.data.decode)
    found = {}
    for name, (folder, version) in versions.items():
        engine.load_adapter(folder or Path(), version)
        found[name] = analyse(
            InsightFace(engine), clip, question, references, grounding=grounding, max_tokens=cfg.rollout.max_tokens
        )
    return found
