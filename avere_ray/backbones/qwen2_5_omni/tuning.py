"""What is trained and what stays frozen.

    LoRA        an adapter on the language model's linear layers (`add_lora`)
    full        every weight of the language model, and the projectors if asked for; the towers never

The frozen towers are taken out of the module tree: ZeRO-3 would divide their weights, and then a worker that encodes a
clip would wait for one that has nothing to encode. Each worker keeps them whole. Trained projectors are the other way
round: the towers give what stands before them, and every forward pass runs both projectors once, over a row of zeros
too, so that all workers do the same collectives whatever media their pairs have.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avere_ray.backbones.types import MediaEmbeds, PackedRow
from avere_ray.errors import ModelError

TOWERS = ("visual", "audio_tower")
_FULL_MODEL = "thinker."
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class WithProjectors(nn.Module):
    """A policy whose projectors are trained: takes what the towers give before them, and projects it first."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        core = policy.core
        self.policy = policy
        self.video, self.audio = core.visual.merger, core.audio_tower.proj
        self._patch = self.video.ln_q.weight.shape[0]
        core.visual.merger, core.audio_tower.proj = _Grouped(self.video.hidden_size), nn.Identity()

    def forward(self, rows: Any, media: Mapping[str, Any], **options: Any) -> torch.Tensor:
        """As `Policy.forward`; `media` are tower outputs before the projectors."""
        packed = rows if isinstance(rows, PackedRow) else self.policy.pack(rows)
        shown, heard = (sorted({p.key for p in packed.places if p.kind == kind}) for kind in ("video", "audio"))
        videos = self._project(self.video, [media[k].video for k in shown], self.video.hidden_size, self._patch)
        audios = self._project(self.audio, [media[k].audio for k in heard], self.audio.in_features)
        graft = 0.0 * (videos[-1].sum() + audios[-1].sum())
        seen, said = dict(zip(shown, videos, strict=False)), dict(zip(heard, audios, strict=False))
        projected = {k: MediaEmbeds(video=seen.get(k), audio=said.get(k)) for k in {*seen, *said}}
        return self.policy(packed, projected, **options) + graft

    @staticmethod
    def _project(module: nn.Module, parts: list[torch.Tensor], width: int, group: int = 0) -> tuple[torch.Tensor, ...]:
        """Each part through the projector in one call, with a row of zeros at the end."""
        weight = next(module.parameters())
        zeros = torch.zeros(1, width, dtype=weight.dtype, device=weight.device)
        rows = torch.cat([*(p.to(zeros) for p in parts), zeros])
        return module(rows.view(-1, group or width)).split([*(len(p) for p in parts), 1])


class _Grouped(nn.Module):
    """Stands in for the video projector: the patches of one token side by side, nothing else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, self.width)


def unfreeze_language_model(policy: Any, *, projectors: bool) -> nn.Module:
    """The module to train for full fine-tuning: all of the language model, and the projectors if asked for."""
    core = policy.core
    core.requires_grad_(False)
    core.model.requires_grad_(True)
    core.lm_head.requires_grad_(True)
    if not projectors:
        return policy
    module = WithProjectors(policy)
    module.video.requires_grad_(True)
    module.audio.requires_grad_(True)
    return module


def set_towers_apart(policy: Any) -> None:
    """Takes the frozen towers out of the module tree; `policy.encode` finds them as before."""
    core = policy.core
    for name in TOWERS:
        tower = core._modules.pop(name).requires_grad_(False).eval()
        object.__setattr__(core, name, tower)


def place_towers(policy: Any, device: torch.device) -> None:
    """Moves towers that were set apart to the device of the rest."""
    for name in TOWERS:
        getattr(policy.core, name).to(device)


def trained_names(policy: Any, module: nn.Module) -> dict[str, nn.Parameter]:
    """Trained parameters of full fine-tuning under their names in the Thinker."""
    found = {name: p for name, p in policy.core.named_parameters() if p.requires_grad}
    if isinstance(module, WithProjectors):
        found |= {f"visual.merger.{n}": p for n, p in module.video.named_parameters()}
        found |= {f"audio_tower.proj.{n}": p for n, p in module.audio.named_parameters()}
    return found


def save_model(trained: Mapping[str, torch.Tensor], base: Path, out: Path) -> None:
    """Writes a model folder like `base` with the trained weights in place of its own, file by file.

    Raises:
        ModelError: the base has no place for a trained weight.
    """
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    left = dict(trained)
    for path in sorted(base.iterdir()):
        if path.suffix == ".safetensors":
            weights = load_file(path)
            for key in weights:
                name = key.removeprefix(_FULL_MODEL)
                if name in left:
                    weights[key] = left.pop(name).detach().cpu().contiguous()
            save_file(weights, out / path.name, metadata={"format": "pt"})
        elif path.is_file() and path.suffix not in _WEIGHTS:
            shutil.copy2(path, out / path.name)
    if set(left) - _tied(base):
        raise ModelError(
            f"the weights of {base} have no {sorted(left)[0]!r}, which was trained; nothing usable was saved"
        )


def _tied(base: Path) -> set[str]:
    """Names that are no weights of their own, because the output layer is the embedding table."""
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    thinker = config.get("thinker_config", config)
    text = thinker.get("text_config", thinker)
    tied = any(c.get("tie_word_embeddings", False) for c in (config, thinker, text))
    return {"lm_head.weight"} if tied else set()
