"""One DPO step of TRL against one of ours: the language tower alone, one chosen and one rejected response.

`python -m benchmarks.trl_step [--device cpu|cuda] [--shape mini|small|standard|7b-layer] [--repeats N] [--json]`

TRL's DPOTrainer runs its own data preparation, collator and `training_step` on a Qwen2 language model; ours runs the
tree over the same token ids with the same weights and the same LoRA adapter. Sigmoid loss, beta 0.1, reference by
adapter-off each step, both with an AdamW step. The losses must agree to 1e-5. Also with the reference known on both
sides. TRL is needed for this alone: `pip install -c constraints.txt -e '.[bench]'`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from avere_ray.backbones.qwen2_5_omni import LORA_TARGETS, Policy, add_lora
from avere_ray.backbones.types import Sample
from avere_ray.losses import PairBatch, PairLogps
from avere_ray.tree import Branch
from benchmarks.loss import BETA, plain_dpo
from benchmarks.shapes import SHAPES, Shape, make_policy
from benchmarks.timing import seconds_of


def measure(shape_name: str, device_name: str, repeats: int) -> dict[str, Any]:
    """Seconds of a step on both sides, in turn, and how far their losses differ."""
    shape, device = SHAPES[shape_name], torch.device(device_name)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ours = add_lora(make_policy(shape, device=device, dtype=dtype), rank=8, alpha=32.0, seed=0)
    ours.train()
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.01)
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for known in (False, True):
            trainer = _trainer(ours, shape, device, scratch, known=known)
            batch = next(iter(trainer.get_train_dataloader()))
            theirs = _trl_step(trainer, batch)
            mine = _our_step(ours, _samples(batch), known=known)
            key = "_ref_known" if known else ""
            losses = {"trl": theirs(), "tree": mine()}
            times: dict[str, list[float]] = {"trl": [], "tree": []}
            for _ in range(repeats):
                for name, step in (("trl", theirs), ("tree", mine)):
                    times[name].append(seconds_of(step, device))
            medians = {name: statistics.median(values) for name, values in times.items()}
            out |= {f"{name}{key}_s": value for name, value in medians.items()}
            out[f"speedup{key}"] = medians["trl"] / medians["tree"]
            out[f"loss_diff{key}"] = abs(losses["trl"] - losses["tree"])
    prompt, *responses = (len(x) for x in _parts(batch))
    import trl

    out |= {"prompt_tokens": prompt, "response_tokens": responses, "trl": trl.__version__, "repeats": repeats}
    out |= {"threads": torch.get_num_threads(), "shape": shape_name, "device": device_name}
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in out.items()}


def _trainer(ours: Policy, shape: Shape, device: torch.device, scratch: str, *, known: bool) -> Any:
    """TRL's trainer on the language tower with our weights and adapter."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import DPOConfig, DPOTrainer

    text = ours.core.config.text_config
    config = Qwen2Config(
        **{
            name: getattr(text, name)
            for name in (
                *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
                *("num_key_value_heads", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
                *("rms_norm_eps", "tie_word_embeddings"),
            )
        },
        rope_parameters={"rope_type": "default", "rope_theta": text.rope_parameters["rope_theta"]},
    )
    model = Qwen2ForCausalLM(config).to(device=device, dtype=ours.core.lm_head.weight.dtype)
    peft_model = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=32.0, lora_dropout=0.0, bias="none", target_modules=LORA_TARGETS)
    )
    mine = {n.removeprefix("base_model.model."): v for n, v in ours.thinker.state_dict().items()}
    weights = {n: mine[n.removeprefix("base_model.model.")] for n in peft_model.state_dict()}
    # TRL takes the adapter it is given as the reference; a fresh one is the base, as on our side.
    peft_model.load_state_dict({n: v for n, v in weights.items() if "lora_B" not in n}, strict=False)
    tokenizer = ours.processor.hf.tokenizer
    words = np.random.default_rng(0).permutation(_plain_words(tokenizer)).tolist()
    length = 1100 if shape.response == 100 else 340
    row = {
        "prompt": "".join(words[i % len(words)] for i in range(length)),
        "chosen": "".join(words[(7 * i) % len(words)] for i in range(shape.response)),
        "rejected": "".join(words[(11 * i + 3) % len(words)] for i in range(shape.response - 4)),
    }
    settings = DPOConfig(
        output_dir=scratch,
        beta=BETA,
        per_device_train_batch_size=1,
        max_length=None,
        precompute_ref_log_probs=known,
        gradient_checkpointing=False,
        use_cpu=device.type == "cpu",
        bf16=device.type == "cuda",
        learning_rate=1e-12,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1_000_000,
    )
    trainer = DPOTrainer(peft_model, args=settings, train_dataset=Dataset.from_list([row]), processing_class=tokenizer)
    peft_model.load_state_dict(weights, strict=False)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # set by the training loop, which is left out here
    return trainer


def _plain_words(tokenizer: Any) -> list[str]:
    """Words that are one token each."""
    words = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    return [w for w in words if w.startswith(" ") and w.strip().isalpha() and len(tokenizer(w)["input_ids"]) == 1]


def _trl_step(trainer: Any, batch: dict[str, Any]) -> Callable[[], float]:
    def step() -> float:
        loss = trainer.training_step(trainer.model, dict(batch))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


def _parts(batch: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected token ids of TRL's batch of one pair."""
    ids, seen, completion = (batch[k].tolist() for k in ("input_ids", "attention_mask", "completion_mask"))
    rows = [
        ([t for t, s, c in zip(*x, strict=True) if s and not c], [t for t, s, c in zip(*x, strict=True) if s and c])
        for x in zip(ids, seen, completion, strict=True)
    ]
    return rows[0][0], rows[0][1], rows[1][1]


def _samples(batch: dict[str, Any]) -> list[Sample]:
    prompt, *responses = _parts(batch)
    return [_sample(prompt, response) for response in responses]


def _sample(prompt: Sequence[int], response: Sequence[int]) -> Sample:
    """Words alone."""
    ids = np.asarray([*prompt, *response], np.int64)
    positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids))).copy()
    zeros = np.zeros_like(ids)
    branch = Branch(keys=ids, positions=positions, response_start=len(prompt))
    return Sample(branch=branch, token_ids=ids, kind=zeros, offset=zeros, video_id="", audio_id="")


def _our_step(policy: Policy, samples: Sequence[Sample], *, known: bool) -> Callable[[], float]:
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-12)
    objective = plain_dpo()
    device = policy.device
    pair = PairBatch(
        weights_PK=torch.ones(1, 1, device=device),
        tokens_PY=torch.tensor([[float(len(s.token_ids) - s.branch.response_start) for s in samples]], device=device),
        text_prior_PY=torch.zeros(1, 2, device=device),
        modality=("",),
        has_relevant_P=torch.zeros(1, dtype=torch.bool, device=device),
        has_irrelevant_P=torch.zeros(1, dtype=torch.bool, device=device),
        reject_kinds=(("spurious",),),
        gamma_P=torch.zeros(1, device=device),
    )

    def logps(packed: Any, *, reference: bool) -> PairLogps:
        with policy.without_adapter() if reference else nullcontext(), torch.set_grad_enabled(not reference):
            return PairLogps(clean_PY=policy(packed, {})[None])

    stored = logps(policy.pack([samples]), reference=True) if known else None

    def step() -> float:
        packed = policy.pack([samples])
        reference = stored or logps(packed, reference=True)
        loss = objective(logps(packed, reference=False), reference, pair)[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trl_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("mini", "small", "standard", "7b-layer"), default="standard")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import trl  # noqa: F401
    except ImportError:
        parser.error("trl is not installed; run pip install -c constraints.txt -e '.[bench]' first")
    figures = measure(options.shape, options.device, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
