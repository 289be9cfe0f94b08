"""Media encoded once, reference figures from three sources that agree, and a miss on any change."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from avere_ray.backbones.qwen2_5_omni import add_lora, load_policy
from avere_ray.branches import ByBranch, Wanted, pair_samples
from avere_ray.errors import StageError
from avere_ray.logp_cache import LogpCache
from avere_ray.media_cache import EmbedFolder, Encoded, MediaCache, irrelevant_swap, tower_digest
from avere_ray.records import DecodedClip, ModalitySwap, PreferencePair, Reject, RejectKind
from avere_ray.reference import AdapterOff, AsIs, Cached, Precomputed, check_complete, from_record, pair_key, to_record
from tests.unit.models import tiny_base


@pytest.fixture(scope="module")
def policy():
    """The tiny base with an adapter that changes what it says."""
    lora = add_lora(load_policy(tiny_base(), "float32"), rank=8, alpha=32.0, seed=0)
    with torch.no_grad():
        for name, value in lora.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.02)
    return lora.eval()


def _clip(name):
    random = np.random.default_rng(ord(name))
    return DecodedClip(
        clip_id=name,
        spec="",
        frames=random.integers(0, 255, (4, 84, 84, 3), dtype=np.uint8),
        frame_times_s=np.arange(4, dtype=np.float32),
        waveform=random.standard_normal(32000).astype(np.float32) * 0.1,
        duration_s=2.0,
    )


class _Clips:
    """Decoded clips that count how often each is asked for."""

    def __init__(self):
        self.loads = 0

    def __call__(self, name):
        self.loads += 1
        return _clip(name)


def _pair(clip="a", modality="audio", partner="b", **changes):
    swap = ModalitySwap(
        modality=modality,
        strategy="other_emotion",
        audio_clip_id=clip if modality == "video" else partner,
        video_clip_id=clip if modality == "audio" else partner,
    )
    pair = PreferencePair(
        pair_id=f"{clip}-{modality}",
        query_id="q",
        clip_id=clip,
        modality=modality,
        prompt="What does the woman feel?",
        chosen="Her voice is loud.",
        chosen_source="reference",
        rejects=(
            Reject(text="Her shirt is red.", kind=RejectKind.SPURIOUS, source="written"),
            Reject(text="She cries.", kind=RejectKind.HALLUCINATED, source="written"),
        ),
        swap=swap,
    )
    return dataclasses.replace(pair, **changes)


PAIRS = [_pair(), _pair(modality="video"), _pair("b", "audio_video", "a"), _pair("b", swap=None)]
WEIGHTS = {"weights": "w", "dtype": "float32"}


def _media(policy, clips=None, **options):
    return MediaCache(processor=policy.processor, load=clips or _Clips(), **options)


# Media ----------------------------------------------------------------------------------------------------------


def test_each_distinct_medium_is_encoded_once(policy):
    media = _media(policy)
    media.ensure(policy, PAIRS, irrelevant=True)
    assert media.encoder_calls == 4  # two videos and two sounds, whatever shows them
    media.ensure(policy, PAIRS, irrelevant=True)
    assert media.encoder_calls == 4


def test_from_the_second_time_on_no_clip_is_loaded(policy):
    clips = _Clips()
    media = _media(policy, clips)
    media.ensure(policy, PAIRS)
    before = clips.loads
    media.ensure(policy, PAIRS)
    assert clips.loads == before


def test_a_later_run_reads_tower_outputs_from_disk(policy, tmp_path):
    first = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30))
    first.ensure(policy, PAIRS)
    later = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30))
    later.ensure(policy, PAIRS)
    assert later.encoder_calls == 0
    for key, value in first.embeds.items():
        assert torch.equal(value.video, later.embeds[key].video)


def test_other_tower_weights_are_a_miss(policy, tmp_path):
    _media(policy, folder=EmbedFolder(tmp_path, 1 << 30)).ensure(policy, PAIRS)
    other = load_policy(tiny_base(), "float32")
    assert tower_digest(other) == tower_digest(policy)
    with torch.no_grad():
        other.core.visual.patch_embed.proj.weight.mul_(1.5)
    media = _media(other, folder=EmbedFolder(tmp_path, 1 << 30))
    media.ensure(other, PAIRS)
    assert media.encoder_calls == 4


def test_memory_is_bounded_and_what_was_let_go_comes_back_from_disk(policy, tmp_path):
    media = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30), memory_bytes=1)
    media.ensure(policy, PAIRS[:1])
    media.ensure(policy, [_pair("c", partner="d")])
    assert len(media.embeds) == 3  # the pair's own video and sound, and the other sound
    calls = media.encoder_calls
    media.ensure(policy, PAIRS[:1])
    assert media.encoder_calls == calls


def test_training_towers_are_run_every_time_and_keep_their_gradient(policy):
    media = _media(policy, frozen=False)
    towers = list(policy.core.visual.parameters())
    for p in towers:
        p.requires_grad_(True)
    media.ensure(policy, PAIRS[:1])
    assert media.embeds[media.own(PAIRS[0]).video].video.requires_grad
    calls = media.encoder_calls
    media.ensure(policy, PAIRS[:1])
    assert media.encoder_calls == 2 * calls
    for p in towers:
        p.requires_grad_(False)


def test_the_folder_keeps_to_its_quota_and_drops_the_oldest(tmp_path):
    folder = EmbedFolder(tmp_path, quota_bytes=5000)
    for i in range(20):
        folder.put(f"{i:02d}key", Encoded(vectors=torch.full((10, 10), float(i)), grid_thw=(0, 0, 0)))
    left = sum(p.stat().st_size for p in tmp_path.glob("*/*.safetensors"))
    assert left <= 5000
    assert folder.get("19key") is not None
    assert folder.get("00key") is None


def test_the_irrelevant_swap_replaces_the_other_modality_by_the_same_partner():
    swap = irrelevant_swap(_pair(modality="audio"))
    assert (swap.audio_clip_id, swap.video_clip_id) == ("a", "b")
    swap = irrelevant_swap(_pair(modality="video"))
    assert (swap.audio_clip_id, swap.video_clip_id) == ("b", "a")
    assert irrelevant_swap(_pair(modality="audio_video")) is None


# Figures --------------------------------------------------------------------------------------------------------


def test_the_three_sources_agree(policy, tmp_path):
    source = AdapterOff(policy, _media(policy))
    direct = source.figures(PAIRS)
    cached = Cached(source, LogpCache(tmp_path), **WEIGHTS)
    assert cached.figures(PAIRS) == direct
    stored = [to_record(pair, scores, "k") for pair, scores in zip(PAIRS, direct, strict=True)]
    assert Precomputed(PAIRS, stored).figures(PAIRS) == direct


def test_figures_are_those_of_the_base_whatever_is_scored_beside_them(policy):
    base = load_policy(tiny_base(), "float32")
    alone = [AdapterOff(base, _media(base)).figures([pair])[0] for pair in PAIRS]
    assert AdapterOff(policy, _media(policy)).figures(PAIRS) == alone


def test_the_adapter_as_it_stands_gives_other_figures(policy):
    media = _media(policy)
    assert AsIs(policy, media).figures(PAIRS[:1]) != AdapterOff(policy, media).figures(PAIRS[:1])


def test_a_pass_that_was_cut_off_goes_on_where_it_was(policy, tmp_path):
    source = AdapterOff(policy, _media(policy))
    with LogpCache(tmp_path) as cache:
        Cached(source, cache, **WEIGHTS).figures(PAIRS[:2])
    with LogpCache(tmp_path) as cache:
        Cached(source, cache, **WEIGHTS).figures(PAIRS)
        assert (cache.hits, cache.misses) == (2, 2)


@pytest.mark.parametrize(
    "changed",
    [
        _pair(prompt="What does the man feel?"),
        _pair(chosen="His voice is loud."),
        _pair(rejects=PAIRS[0].rejects[:1]),
        _pair(clip="c"),
        _pair(partner="d"),
        _pair(modality="video"),
    ],
    ids=["prompt", "chosen", "rejects", "clip", "partner", "modality"],
)
def test_any_change_of_a_pair_is_a_miss(policy, changed):
    source = AdapterOff(policy, _media(policy))
    same, row, other = source.rows([_pair(), _pair(), changed])
    assert pair_key(same, **WEIGHTS) == pair_key(row, **WEIGHTS)
    assert pair_key(row, **WEIGHTS) != pair_key(other, **WEIGHTS)


def test_a_change_of_weights_or_dtype_is_a_miss(policy):
    row = AdapterOff(policy, _media(policy)).rows([_pair()])[0]
    keys = {pair_key(row, weights=w, dtype=d) for w in ("w", "v") for d in ("float32", "bfloat16")}
    assert len(keys) == 4


def test_figures_survive_the_record():
    for scores in (
        ByBranch(clean=(-1.0, -2.0), relevant=(-3.0,), irrelevant=(-4.0,), text=(-5.0, -6.0)),
        ByBranch(clean=(-1.0, -2.0), text=(-5.0, -6.0)),
    ):
        assert from_record(to_record(_pair(), scores, "k")) == scores


def test_a_table_with_a_gap_or_a_sentinel_left_in_it_is_refused():
    pair = _pair()
    whole = ByBranch(clean=(-1.0,) * 3, relevant=(-1.0,), text=(-1.0,) * 3)
    check_complete([pair], [to_record(pair, whole, "k")])
    for broken in (
        [],
        [to_record(pair, dataclasses.replace(whole, relevant=()), "k")],
        [to_record(pair, dataclasses.replace(whole, clean=(-1.0, math.nan, -1.0)), "k")],
        [to_record(pair, dataclasses.replace(whole, text=(-1.0,)), "k")],
    ):
        with pytest.raises(StageError, match="a-audio"):
            check_complete([pair], broken)


def test_branches_are_made_as_wanted(policy):
    media = _media(policy)
    media.ensure(policy, PAIRS, irrelevant=True)
    everything = Wanted(relevant_rejects=True, irrelevant=True, irrelevant_rejects=True, text_prior=True)
    full = pair_samples(media, PAIRS[0], everything)
    assert [len(x) for x in (full.clean, full.relevant, full.irrelevant, full.text)] == [3, 3, 3, 3]
    least = pair_samples(media, PAIRS[0], Wanted(relevant=False))
    assert [len(x) for x in (least.clean, least.relevant, least.irrelevant, least.text)] == [3, 0, 0, 0]
    both = pair_samples(media, PAIRS[2], everything)
    assert (len(both.relevant), len(both.irrelevant)) == (3, 0)


def test_a_pair_without_a_clip_is_words_alone(policy):
    media = _media(policy)
    pair = _pair(clip="", swap=None)
    media.ensure(policy, [pair])
    sample = pair_samples(media, pair, Wanted()).clean[0]
    assert not sample.kind.any()
    assert media.encoder_calls == 0
