"""The policy's trees against the published model run on each branch alone: log-probs and gradients."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avere_ray.backbones import load_policy as load_model
from avere_ray.backbones.qwen2_5_omni import add_lora, load_policy
from avere_ray.backbones.types import AUDIO, VIDEO, clip_fps
from avere_ray.branches import ByBranch
from avere_ray.config import LossConfig, ModelConfig
from avere_ray.losses import make_objective, make_text_prior
from avere_ray.pair_batch import loss_inputs
from avere_ray.records import DecodedClip, Reject, RejectKind
from tests.model.models import tiny_base
from tests.model.pairs import make_pair

TEXTS = ("Yes, her voice is loud.", "No, the shirt is yellow.", "(A)", "He smiles.")


@pytest.fixture(scope="module")
def published():
    """The model as transformers runs it, with its own masks and positions."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration  # seconds: for the worker that has this file

    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tiny_base(), dtype=torch.float32)
    model.visual.requires_grad_(False)  # the language model's gradients alone are looked at
    model.audio_tower.requires_grad_(False)
    return model.eval()


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "interleaved"])
def policy(request):
    return load_policy(tiny_base(), "float32", audio_in_video=request.param)


def _clip(name, frames=4, seconds=2.0):
    random = np.random.default_rng(len(name) + ord(name[-1]))
    return DecodedClip(
        clip_id=name,
        spec="",
        frames=random.integers(0, 255, (frames, 84, 84, 3), dtype=np.uint8),
        frame_times_s=np.arange(frames, dtype=np.float32),
        waveform=random.standard_normal(int(seconds * 16000)).astype(np.float32) * 0.1,
        duration_s=seconds,
    )


OWN, OTHER = _clip("own"), _clip("other")
LONG = _clip("long", frames=8, seconds=9.0)
INPUTS = {
    "text only": (None, None),
    "audio only": (None, OWN),
    "video only": (OWN, None),
    "both": (OWN, OWN),
    "audio swapped": (OWN, OTHER),
    "video swapped": (OTHER, OWN),
    "both swapped": (OTHER, OTHER),
    "long": (LONG, LONG),
}


@functools.cache
def _features(policy, name):
    return policy.processor.features({"own": OWN, "other": OTHER, "long": LONG}[name])


def _sample(policy, video, audio, text):
    shapes = {c.clip_id: _features(policy, c.clip_id) for c in (video, audio) if c is not None}
    return policy.processor.sample(
        "What does the woman feel?",
        text,
        video=(video.clip_id, shapes[video.clip_id]) if video else None,
        audio=(audio.clip_id, shapes[audio.clip_id]) if audio else None,
    )


@functools.cache
def _media(policy):
    clips = (OWN, OTHER, LONG)
    with torch.no_grad():
        encoded = policy.encode([_features(policy, c.clip_id) for c in clips])
    return dict(zip([c.clip_id for c in clips], encoded, strict=True))


@functools.cache
def _published_inputs(policy, video, audio):
    """What the published processor makes of the prompt and its media, and whether they are interleaved."""
    clips = {"own": OWN, "other": OTHER, "long": LONG}
    interleaved = policy.processor.audio_in_video and bool(video) and bool(audio)
    prompt = policy.processor.render("What does the woman feel?", video=bool(video), audio=bool(audio))
    media = {}
    if video:
        size = {"shortest_edge": 784, "longest_edge": 1 << 30}
        media["videos"] = [clips[video].frames.copy()]
        media["videos_kwargs"] = {"size": size, "fps": clip_fps(clips[video]), "use_audio_in_video": interleaved}
    if audio:
        media["audio"] = [clips[audio].waveform.copy()]
    return policy.processor.hf(text=prompt, return_tensors="pt", **media), interleaved


def _alone(published, policy, video, audio, sample):
    """Response token log-probs of one branch from the published model: its own processor, masks and positions."""
    start = sample.branch.response_start
    names = (c.clip_id if c else "" for c in (video, audio))
    inputs, interleaved = _published_inputs(policy, *names)
    assert inputs["input_ids"][0].tolist() == sample.token_ids[:start].tolist()
    ids = torch.from_numpy(sample.token_ids)[None]
    words = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = published(**{**inputs, **words}, use_audio_in_video=interleaved).logits[0].float()
    logps = logits.log_softmax(-1)[start - 1 : -1]
    return logps.gather(-1, ids[0, start:, None])[:, 0]


@functools.cache
def _row_alone(published, policy, name):
    """What each of TEXTS gets by itself, for the test of one input and the one of all."""
    with torch.no_grad():
        return [_alone(published, policy, *INPUTS[name], _sample(policy, *INPUTS[name], text)) for text in TEXTS]


@pytest.mark.parametrize("names", [[n] for n in INPUTS] + [list(INPUTS)], ids=[*INPUTS, "all in one row"])
def test_every_branch_gets_the_log_probs_it_has_alone(published, policy, names):
    samples = [_sample(policy, *INPUTS[name], text) for name in names for text in TEXTS]
    apart = [logps for name in names for logps in _row_alone(published, policy, name)]
    with torch.no_grad():
        media = _media(policy)
        together = policy([samples], media)
        tokens = policy([samples], media, per_token=True)
    torch.testing.assert_close(tokens, torch.cat(apart), atol=1e-5, rtol=0)
    # Sums reach a hundred nats, where float32 itself steps by 8e-6.
    torch.testing.assert_close(together, torch.stack([a.sum() for a in apart]), atol=1e-5, rtol=1e-6)


SWAPS = {
    "audio swapped": (INPUTS["both"], INPUTS["audio swapped"]),
    "video swapped": (INPUTS["both"], INPUTS["video swapped"]),
    "both swapped": (INPUTS["both"], INPUTS["both swapped"]),
    "text prior": (INPUTS["both"], INPUTS["text only"]),
    "audio only": (INPUTS["audio only"], (None, OTHER)),
    "video only": (INPUTS["video only"], (OTHER, None)),
}
"""A pair's own input, and the one its chosen response is scored under once more."""


@pytest.mark.parametrize("rejects", [1, 2, 3])
def test_gradients_of_a_loss_are_those_of_separate_forwards(published, policy, rejects):
    """The last pair has words alone, and no other input."""
    inputs = [[own] * (1 + rejects) + [other] for own, other in SWAPS.values()]
    inputs.append([INPUTS["text only"]] * (1 + rejects))
    texts = [*TEXTS[: 1 + rejects], TEXTS[0]]
    rows = [[_sample(policy, *given, text) for given, text in zip(row, texts, strict=False)] for row in inputs]
    weights = torch.linspace(-1.0, 1.0, sum(map(len, rows)))
    policy.zero_grad()
    (policy(rows, _media(policy)) * weights).sum().backward()
    published.zero_grad()
    pairs = [(v, a, s) for row, media in zip(rows, inputs, strict=True) for s, (v, a) in zip(row, media, strict=True)]
    sum(w * _alone(published, policy, *p).sum() for w, p in zip(weights, pairs, strict=True)).backward()
    _assert_same_gradients(policy, published)


def _assert_same_gradients(policy, published):
    for name, ours in policy.core.model.named_parameters():
        theirs = published.model.get_parameter(name).grad
        assert (ours.grad - theirs).norm() <= 1e-4 * theirs.norm() + 1e-9, name


ASKED = [("audio", "audio swapped", 2), ("video", "video swapped", 1), ("audio_video", "both swapped", 3), ("", "", 2)]
"""Pairs of one micro-batch: modality, mismatched input, rejects; the last has words alone."""


def _branches(policy, modality, other, rejects):
    """The branches of one pair as `_alone` takes them: what is shown and heard, and the sample."""
    own = INPUTS["both" if modality else "text only"]
    return ByBranch(
        clean=tuple((*own, _sample(policy, *own, text)) for text in TEXTS[: 1 + rejects]),
        relevant=((*INPUTS[other], _sample(policy, *INPUTS[other], TEXTS[0])),) if other else (),
    )


def _avem_loss(rows, scores, offsets):
    """AVEm-DPO of the pairs; the reference is that far from the policy, so no margin is 0."""
    cfg = LossConfig(kind="avem_dpo")
    kinds = (RejectKind.SPURIOUS, RejectKind.HALLUCINATED, RejectKind.SPURIOUS)
    pairs = [
        make_pair(modality=modality, rejects=tuple(Reject(text=t, kind=k, source="written") for t, k in texts))
        for modality, _, rejects in ASKED
        for texts in [list(zip(TEXTS[1:], kinds, strict=True))[:rejects]]
    ]
    given = iter(offsets)
    frozen = [row.like(iter([s.item() + next(given) for s in row.flat()])) for row in scores]
    frozen = [dataclasses.replace(row, text=tuple(-20.0 - 3.0 * i for i in range(len(row.clean)))) for row in frozen]
    gammas = make_text_prior(cfg).gammas(tuple(p.modality for p in pairs))
    loss_P, metrics = make_objective(cfg)(*loss_inputs(pairs, rows, scores, frozen, gammas, cfg))
    assert metrics["modality/margin"].isfinite().tolist() == [True, True, True, False]
    return loss_P.mean()


def test_gradients_of_avem_dpo_are_those_of_separate_forwards(published, policy):
    """The loss itself, over pairs with one to three rejects, every swap, and words alone."""
    branches = [_branches(policy, *asked) for asked in ASKED]
    rows = [row.like(iter([sample for *_, sample in row.flat()])) for row in branches]
    offsets = torch.linspace(-6.0, 6.0, sum(len(row.flat()) for row in rows)).tolist()
    policy.zero_grad()
    together = iter(policy([row.flat() for row in rows], _media(policy)))
    _avem_loss(rows, [row.like(together) for row in rows], offsets).backward()
    published.zero_grad()
    alone = iter([_alone(published, policy, *branch).sum() for row in branches for branch in row.flat()])
    _avem_loss(rows, [row.like(alone) for row in rows], offsets).backward()
    _assert_same_gradients(policy, published)


@pytest.mark.parametrize(
    ("other", "replaced"),
    [("audio swapped", AUDIO), ("video swapped", VIDEO), ("both swapped", VIDEO)],
)
def test_a_mismatched_input_shares_all_that_stands_before_what_is_replaced(policy, other, replaced):
    """With audio swapped that is the instruction and, unless the media are interleaved, the whole video."""
    own, swapped = (_sample(policy, *INPUTS[name], TEXTS[0]) for name in ("both", other))
    shared = int(np.flatnonzero(own.kind == replaced)[0])
    row = policy.pack([[own, swapped]])
    assert row.tree.size == row.token_ids.shape[1] == len(own.token_ids) + len(swapped.token_ids) - shared
    if other == "audio swapped" and not policy.processor.audio_in_video:
        assert shared > (own.kind == VIDEO).sum()


def test_pairs_about_one_clip_share_its_media_wherever_they_stand_in_a_row(policy):
    """And get the log-probs that they have in a row of their own."""
    first, other, second, words = (
        [_sample(policy, *INPUTS[name], text) for text in texts]
        for name, texts in (("both", TEXTS[:2]), ("both swapped", TEXTS[:2]), ("both", TEXTS[2:]), ("text only", TEXTS))
    )
    rows, media = [first, other, second, words], _media(policy)
    packed = policy.pack(rows)
    apart = [policy.pack([row]).tree.size for row in rows]
    prompt = first[0].branch.response_start
    assert packed.tree.size <= sum(apart) - prompt < sum(apart)
    with torch.no_grad():
        alone = torch.cat([policy([row], media) for row in rows])
        torch.testing.assert_close(policy(packed, media), alone, atol=1e-5, rtol=1e-6)


def test_the_model_still_generates_as_the_published_one_does(published, policy):
    sample = _sample(policy, None, None, TEXTS[0])
    prompt = torch.from_numpy(sample.token_ids[: sample.branch.response_start])[None]
    options = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "max_new_tokens": 8, "do_sample": False}
    assert policy.core.generate(**options).tolist() == published.generate(**options).tolist()


def test_towers_get_no_gradient_from_cached_outputs(policy):
    policy.zero_grad()
    policy([[_sample(policy, OWN, OWN, TEXTS[0])]], _media(policy)).sum().backward()
    assert all(p.grad is None for p in policy.core.visual.parameters())


def test_gradient_checkpointing_runs_each_layer_again_and_changes_nothing(policy):
    lora = add_lora(policy, rank=8, alpha=32.0, seed=0)
    rows, media = [[_sample(policy, *INPUTS["audio swapped"], t) for t in TEXTS]], _media(policy)
    layers, runs, found = lora.core.model.layers, [], []
    hooks = [layer.self_attn.register_forward_hook(lambda *_: runs.append(1)) for layer in layers]
    for checkpointing in (False, True):
        lora.train()
        lora.zero_grad()
        lora.checkpoint_activations(checkpointing)
        score = lora(rows, media).sum()
        assert len(runs) == len(layers)
        score.backward()
        assert len(runs) == len(layers) * (2 if checkpointing else 1)
        runs.clear()
        found.append({n: p.grad.clone() for n, p in lora.named_parameters() if p.grad is not None})
    lora.checkpoint_activations(False)
    for hook in hooks:
        hook.remove()
    lora.thinker.unload()
    assert found[0]
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])


class LargestLogits(TorchDispatchMode):
    """Rows of the largest tensor over the vocabulary that any operation gives; the output layer's weights apart."""

    def __init__(self, head_VD):
        super().__init__()
        self.head_VD, self.rows = head_VD, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        logits = [
            x for x in tensors if x.shape[-1:] == (len(self.head_VD),) and x.data_ptr() != self.head_VD.data_ptr()
        ]
        self.rows = max([self.rows, *(x.numel() // x.shape[-1] for x in logits)])
        return out


def test_only_response_tokens_get_logits_forward_and_backward(policy):
    lora = add_lora(policy, rank=8, alpha=32.0, seed=0)
    packed = lora.pack([[_sample(lora, *INPUTS[name], text) for text in TEXTS] for name in ("both", "text only")])
    with LargestLogits(lora.core.lm_head.weight) as largest:
        scores = lora(packed, _media(lora))
        forward, largest.rows = largest.rows, 0
        scores.sum().backward()
    lora.thinker.unload()
    assert forward == largest.rows == len(packed.predictions.target) < packed.tree.size / 2


@pytest.mark.parametrize("kernel", ["dense", "flex"])
def test_the_kernel_that_the_config_names_is_used_and_gives_the_same(kernel):
    model = ModelConfig(path=tiny_base(), attention=kernel)
    plain, other = load_model(model.model_copy(update={"attention": "auto"})), load_model(model)
    rows = [[_sample(plain, *INPUTS[name], text) for text in TEXTS] for name in ("audio swapped", "text only")]
    assert (plain.pack(rows).layout.kernel, other.pack(rows).layout.kernel) == ("blocks", kernel)
    with torch.no_grad():
        torch.testing.assert_close(other(rows, _media(other)), plain(rows, _media(plain)), atol=1e-4, rtol=1e-6)


@pytest.fixture(scope="module")
def precisions():
    """The tiny base in float32 and in bfloat16."""
    return [load_policy(tiny_base(), dtype) for dtype in ("float32", "bfloat16")]


def test_bfloat16_gradients_point_where_those_of_float32_do(precisions):
    """Bounds stated in docs/design.md: per matrix of the adapter, cosine above 0.99 and norm within 8 %."""
    found = []
    for policy in precisions:
        lora = add_lora(policy, rank=8, alpha=32.0, seed=0)
        rows = [[_sample(lora, *INPUTS[name], text) for text in TEXTS[:2]] for name in ("audio swapped", "both")]
        scores = lora(rows, _media(lora))
        (scores * torch.tensor([1.0, -1.0, 0.5, -0.5])).sum().backward()
        found.append({n: p.grad.float() for n, p in lora.named_parameters() if "lora_B" in n})
        lora.thinker.unload()
    for name, exact in found[0].items():
        rounded = found[1][name]
        assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99, name
        assert abs(rounded.norm() / exact.norm() - 1) < 0.08, name


def test_bfloat16_stays_within_a_twentieth_of_a_nat_per_token(precisions):
    full, half = precisions
    rows = [[_sample(full, *INPUTS[name], text) for text in TEXTS] for name in INPUTS]
    with torch.no_grad():
        exact, rounded = (p(rows, _media(p), per_token=True) for p in (full, half))
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().mean() < 0.05
    assert (exact - rounded).abs().max() < 0.25
    assert not torch.equal(exact, rounded)
