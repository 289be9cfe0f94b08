"""Every loss over real trees: step 0 gives the identities, and training lowers the loss."""

import math

import pytest
import torch

from avere_ray.backbones.qwen2_5_omni import add_lora, load_policy
from avere_ray.branches import Wanted
from avere_ray.config import LossConfig, TrainConfig
from avere_ray.learner.explain import explain_pair
from avere_ray.learner.objective import PairObjective, forward_passes, reference_branches
from avere_ray.learner.preflight import check_pairs
from avere_ray.ledger import Ledger
from avere_ray.media_cache import MediaCache
from avere_ray.reference import AdapterOff
from tests.model.models import tiny_base
from tests.model.pairs import PAIRS, Clips, make_pair

LOG_2 = math.log(2.0)
WORDS = make_pair(clip="", modality="", swap=None)
KINDS = {
    "dpo": {"kind": "dpo"},
    "avem_dpo": {"kind": "avem_dpo"},
    "vista_dpo": {"kind": "vista_dpo"},
    "mdpo": {"kind": "mdpo"},
    "mod_dpo": {"kind": "mod_dpo"},
    "mod_dpo_pp": {"kind": "mod_dpo_pp"},
    "sft": {"kind": "sft"},
    "own text prior": {"kind": "avem_dpo", "text_prior_source": "policy"},
    "adaptive": {"kind": "avem_dpo", "text_prior": "adaptive"},
}


@pytest.fixture(scope="module")
def base():
    return load_policy(tiny_base(), "float32")


@pytest.fixture(scope="module")
def encoded(base):
    """The media of all tests, encoded once, since towers have no adapter."""
    return MediaCache(processor=base.processor, load=Clips())


@pytest.fixture
def make(base, encoded):
    """Makes the objective of some settings over a fresh adapter."""
    made = []

    def of(media=encoded, **settings):
        policy = add_lora(base, rank=8, alpha=32.0, seed=0).train()
        made.append(policy)
        cfg = LossConfig(**settings)
        return PairObjective(cfg, policy, media, AdapterOff(policy, media, reference_branches(cfg)))

    yield of
    for policy in made:
        policy.thinker.unload()


def _score(objective, pairs=PAIRS):
    return objective.score(objective.policy, pairs, objective.rows(pairs))


@pytest.mark.parametrize("name", KINDS)
def test_at_step_0_the_loss_is_what_a_policy_equal_to_its_reference_has(make, name):
    scored = _score(make(**KINDS[name]))
    torch.testing.assert_close(scored.start_loss_P, scored.expected_start_P, atol=1e-5, rtol=0)
    assert scored.loss_P.requires_grad


@pytest.mark.parametrize(
    ("name", "branches"), [("dpo", 1 + 2), ("avem_dpo", 1 + 2 + 1), ("vista_dpo", 1 + 2 + 1 + 1), ("mod_dpo", 1 + 2)]
)
def test_the_first_pair_is_told_branch_by_branch_whatever_the_loss_looks_at(make, name, branches):
    objective, pair = make(**KINDS[name]), make_pair()
    told = explain_pair(objective.policy.processor, pair, objective.rows([pair])[0])
    names = [line.strip() for line in told.splitlines() if line.startswith("  ") and ": ..." in line]
    assert len(names) == branches
    assert names[0].startswith("chosen: ")
    assert [n for n in names if "audio of another clip" in n] == names[3:4]


@pytest.mark.parametrize("name", KINDS)
def test_the_passes_of_a_micro_batch_do_not_depend_on_its_pairs(make, name):
    """Under ZeRO-3 every pass is a collective: a worker with one less would be waited for."""
    objective, counts = make(**KINDS[name]), []
    for pairs in (PAIRS, [WORDS], [WORDS, PAIRS[3]]):
        counts.append(0)
        hook = objective.policy.core.model.register_forward_hook(lambda *_: counts.append(counts.pop() + 1))
        _score(objective, pairs)
        hook.remove()
    assert counts == counts[:1] * 3
    assert counts[0] == {"vista_dpo": 3, "mod_dpo": 3, "mod_dpo_pp": 3, "own text prior": 3, "adaptive": 3}.get(name, 2)


def test_a_loss_that_reads_no_swapped_input_encodes_none(make, base):
    objective = make(media=MediaCache(processor=base.processor, load=Clips()), kind="dpo")
    _score(objective, PAIRS[:2])
    assert objective.media.encoder_calls == 2  # the clip's own video and sound


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "dpo"}, Wanted(relevant=False)),
        ({"kind": "mdpo"}, Wanted(relevant=True)),
        ({"kind": "avem_dpo"}, Wanted(relevant=True, text_prior=True)),
        ({"kind": "avem_dpo", "text_prior_gamma": 0.0}, Wanted(relevant=True)),
        ({"kind": "avem_dpo", "text_prior_source": "policy"}, Wanted(relevant=True)),
        ({"kind": "avem_dpo", "text_prior": "adaptive"}, Wanted(relevant=True, text_prior=True)),
        ({"kind": "vista_dpo"}, Wanted(relevant=True, irrelevant=True)),
        ({"kind": "mod_dpo"}, Wanted(relevant=False)),
        ({"kind": "mod_dpo_pp"}, Wanted(relevant=False, text_prior=True)),
    ],
)
def test_the_reference_scores_only_what_the_loss_reads(settings, expected):
    assert reference_branches(LossConfig(**settings)) == expected


def test_the_identities_of_avem_dpo_and_mdpo_are_the_papers(make):
    swapped = torch.tensor([p.swap is not None for p in PAIRS]).float()
    avem = _score(make(kind="avem_dpo", lambda_av=2.0))
    torch.testing.assert_close(avem.expected_start_P, LOG_2 * (1 + 2.0 * swapped))
    mdpo = _score(make(kind="mdpo"))
    torch.testing.assert_close(mdpo.expected_start_P, LOG_2 * (2 + swapped))


@pytest.mark.parametrize("name", KINDS)
def test_a_few_steps_lower_the_loss(make, name):
    objective = make(**KINDS[name])
    trained = [p for p in objective.policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    for _ in range(2):
        scored = _score(objective)
        losses.append(scored.loss_P.mean().item())
        scored.loss_P.mean().backward()
        objective.adapt([objective.gains(PAIRS, scored, torch.ones(len(PAIRS)))])
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert _score(objective).loss_P.mean().item() < losses[0]


def test_the_adaptive_strength_moves_once_training_has_begun(make):
    objective = make(**KINDS["adaptive"], text_prior_target=0.0, text_prior_rate=0.1)
    trained = [p for p in objective.policy.parameters() if p.requires_grad]
    before = objective.text_prior.state_dict()["gamma"]
    _score(objective).loss_P.mean().backward()
    with torch.no_grad():
        for p in trained:
            p.sub_(0.3 * p.grad / (p.grad.norm() + 1e-9))
    scored = _score(objective)
    objective.adapt([objective.gains(PAIRS, scored, torch.ones(len(PAIRS)))])
    assert (scored.clip_gain_P > 1e-3).any()
    assert objective.text_prior.state_dict()["gamma"] != before


def test_a_fixed_strength_asks_for_no_gains(make):
    objective = make(kind="avem_dpo")
    assert objective.gains(PAIRS, _score(objective), torch.ones(len(PAIRS))) is None


def test_losses_do_not_depend_on_what_is_scored_beside_a_pair(make):
    objective = make(kind="avem_dpo")
    together = _score(objective).loss_P
    alone = torch.cat([_score(objective, [pair]).loss_P for pair in PAIRS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_pair_of_words_alone_stands_beside_one_with_media(make):
    objective = make(kind="avem_dpo")
    pairs = [WORDS, PAIRS[0]]
    assert _score(objective, pairs).loss_P.isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_no_forward_pass_has_more_tokens_than_the_lengths_of_its_pairs_say(make, base, monkeypatch, name):
    objective = make(**KINDS[name])
    rows = []
    pack = type(objective.policy).pack
    monkeypatch.setattr(type(objective.policy), "pack", lambda self, trees: rows.append(pack(self, trees)) or rows[-1])
    _score(objective)

    def prompt(pair, **media):
        return base.processor.sample(pair.prompt, [base.processor.end_id], **media).branch.response_start

    def shown(pair):
        media = objective.media.own(pair)
        return prompt(pair, video=media.shown(), audio=media.heard())

    _, sizes = check_pairs(
        PAIRS,
        TrainConfig(),
        Ledger("adapters"),
        passes=forward_passes(objective.cfg, adapter_off=True),
        response_tokens=lambda text: len(base.processor.response_ids(text)),
        prompt_tokens=shown,
        words_tokens=prompt,
    )
    assert len(rows) >= 2
    assert max(row.tree.size for row in rows) <= sum(sizes)
