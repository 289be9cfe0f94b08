"""Media encoded once, reference figures from three sources that agree, and a miss on any change."""

import dataclasses
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from avere_ray.backbones.qwen2_5_omni import add_lora, load_policy
from avere_ray.branches import ByBranch, Wanted, pair_samples
from avere_ray.corruptions import CORRUPTIONS
from avere_ray.embed_folder import EmbedFolder, Encoded
from avere_ray.errors import StageError
from avere_ray.logp_cache import LogpCache
from avere_ray.media_cache import MediaCache, irrelevant_swap, tower_digest
from avere_ray.modality import made_swap
from avere_ray.reference import (
    AdapterOff,
    AsIs,
    Cached,
    Precomputed,
    check_complete,
    check_finite,
    from_record,
    pair_key,
    to_record,
)
from tests.model.models import tiny_base
from tests.model.pairs import PAIRS, Clips, make_pair


@pytest.fixture(scope="module")
def policy():
    """The tiny base with an adapter that changes what it says."""
    lora = add_lora(load_policy(tiny_base(), "float32"), rank=8, alpha=32.0, seed=0)
    with torch.no_grad():
        for name, value in lora.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.02)
    return lora.eval()


WEIGHTS = {"weights": "w", "dtype": "float32"}


def _media(policy, clips=None, **options):
    return MediaCache(processor=policy.processor, load=clips or Clips(), **options)


# Media ----------------------------------------------------------------------------------------------------------


def test_each_distinct_medium_is_encoded_once(policy):
    media = _media(policy)
    media.ensure(policy, PAIRS, irrelevant=True)
    assert media.encoder_calls == 4  # two videos and two sounds, whatever shows them
    media.ensure(policy, PAIRS, irrelevant=True)
    assert media.encoder_calls == 4


@pytest.mark.parametrize("strategy", CORRUPTIONS)
def test_a_made_swap_needs_no_partner_and_is_other_media(policy, strategy):
    clips = Clips()
    media = _media(policy, clips)
    pair = make_pair(swap=made_swap("audio", strategy, "a", seed=5, level=0.5))
    media.ensure(policy, [pair], irrelevant=True)
    assert clips.loads == 1
    assert media.encoder_calls == 4  # own video and sound, made sound, and (irrelevant) made video


def test_from_the_second_time_on_no_clip_is_loaded(policy):
    clips = Clips()
    media = _media(policy, clips)
    media.ensure(policy, PAIRS)
    before = clips.loads
    media.ensure(policy, PAIRS)
    assert clips.loads == before


def test_on_cpu_what_is_encoded_beside_a_medium_cannot_change_it(policy, monkeypatch):
    """A training that goes on after a restart encodes the same media in other company."""
    at_once = []
    for name in ("encode_video", "encode_audio"):
        encode = getattr(policy, name)
        monkeypatch.setattr(policy, name, lambda media, encode=encode: at_once.append(len(media)) or encode(media))
    _media(policy).ensure(policy, PAIRS, irrelevant=True)
    assert at_once == [1, 1, 1, 1]


def test_a_later_run_reads_tower_outputs_from_disk(policy, tmp_path):
    first = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30))
    first.ensure(policy, PAIRS)
    later = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30))
    later.ensure(policy, PAIRS)
    assert later.encoder_calls == 0
    for key, value in first.embeds.items():
        again = later.embeds[key]
        assert (value.video is None) == (again.video is None)
        assert torch.equal(*(e.audio if e.video is None else e.video for e in (value, again)))


def test_other_tower_weights_are_a_miss(policy, tmp_path):
    _media(policy, folder=EmbedFolder(tmp_path, 1 << 30)).ensure(policy, PAIRS)
    other = load_policy(tiny_base(), "float32")
    assert tower_digest(other) == tower_digest(policy)
    with torch.no_grad():
        other.core.visual.patch_embed.proj.weight.mul_(1.5)
    media = _media(other, folder=EmbedFolder(tmp_path, 1 << 30))
    media.ensure(other, PAIRS)
    assert media.encoder_calls == 4


@pytest.mark.parametrize(("part", "setting"), [("video_processor", "image_mean"), ("feature_extractor", "dither")])
def test_another_way_to_process_media_is_a_miss(policy, tmp_path, part, setting):
    _media(policy, folder=EmbedFolder(tmp_path, 1 << 30)).ensure(policy, PAIRS)
    folder = tmp_path / "model"
    shutil.copytree(tiny_base(), folder)
    assert tower_digest(load_policy(folder, "float32")) == tower_digest(policy)
    config = folder / "processor_config.json"
    settings = json.loads(config.read_text())
    settings[part][setting] = [0.5, 0.5, 0.5] if part == "video_processor" else 0.1
    config.write_text(json.dumps(settings))
    other = load_policy(folder, "float32")
    media = _media(other, folder=EmbedFolder(tmp_path, 1 << 30))
    media.ensure(other, PAIRS)
    assert media.encoder_calls == 4


def test_memory_is_bounded_and_what_was_let_go_comes_back_from_disk(policy, tmp_path):
    media = _media(policy, folder=EmbedFolder(tmp_path, 1 << 30), memory_bytes=1)
    media.ensure(policy, PAIRS[:1])
    media.ensure(policy, [make_pair("c", partner="d")])
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


def test_processes_may_write_the_same_entry_at_the_same_moment(tmp_path):
    folders = [EmbedFolder(tmp_path, 1 << 30) for _ in range(4)]
    entry = Encoded(vectors=torch.ones(50, 50), grid_thw=(0, 0, 0))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(40):
            list(pool.map(lambda folder: folder.put("aakey", entry), folders))
    assert torch.equal(folders[0].get("aakey").vectors, entry.vectors)
    assert not list(tmp_path.glob("*/*.partial"))


def test_the_folder_keeps_to_its_quota_and_drops_the_oldest(tmp_path):
    folder = EmbedFolder(tmp_path, quota_bytes=5000)
    for i in range(20):
        folder.put(f"{i:02d}key", Encoded(vectors=torch.full((10, 10), float(i)), grid_thw=(0, 0, 0)))
    left = sum(p.stat().st_size for p in tmp_path.glob("*/*.safetensors"))
    assert left <= 5000
    assert folder.get("19key") is not None
    assert folder.get("00key") is None


def test_the_irrelevant_swap_replaces_the_other_modality_by_the_same_partner():
    swap = irrelevant_swap(make_pair(modality="audio"))
    assert (swap.audio_clip_id, swap.video_clip_id) == ("a", "b")
    swap = irrelevant_swap(make_pair(modality="video"))
    assert (swap.audio_clip_id, swap.video_clip_id) == ("b", "a")
    assert irrelevant_swap(make_pair(modality="audio_video")) is None


# Figures --------------------------------------------------------------------------------------------------------


def _close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert [len(a.clean), len(a.relevant), len(a.text)] == [len(b.clean), len(b.relevant), len(b.text)]
        assert a.flat() == pytest.approx(b.flat(), abs=1e-5, rel=1e-6)


def test_the_three_sources_agree(policy, tmp_path):
    source = AdapterOff(policy, _media(policy))
    kept = Cached(source, LogpCache(tmp_path), **WEIGHTS).figures(PAIRS)
    stored = [to_record(pair, scores, "k") for pair, scores in zip(PAIRS, kept, strict=True)]
    assert Precomputed(PAIRS, stored).figures(PAIRS) == kept
    _close(source.figures(PAIRS), kept)


def test_kept_figures_are_the_same_bits_whatever_is_scored_beside_them(policy, tmp_path):
    base = load_policy(tiny_base(), "float32")
    alone = [AdapterOff(base, _media(base)).figures([pair])[0] for pair in PAIRS]
    assert Cached(AdapterOff(policy, _media(policy)), LogpCache(tmp_path), **WEIGHTS).figures(PAIRS) == alone
    _close(AdapterOff(policy, _media(policy)).figures(PAIRS), alone)


def test_the_adapter_is_switched_off_for_one_pass_over_a_whole_micro_batch(policy):
    passes = []
    hook = policy.core.model.register_forward_hook(lambda *_: passes.append(1))
    AdapterOff(policy, _media(policy)).figures(PAIRS)
    hook.remove()
    assert len(passes) == 1


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
        make_pair(prompt="What does the man feel?"),
        make_pair(chosen="His voice is loud."),
        make_pair(rejects=PAIRS[0].rejects[:1]),
        make_pair(clip="c"),
        make_pair(partner="d"),
        make_pair(modality="video"),
    ],
    ids=["prompt", "chosen", "rejects", "clip", "partner", "modality"],
)
def test_any_change_of_a_pair_is_a_miss(policy, changed):
    source = AdapterOff(policy, _media(policy))
    same, row, other = source.rows([make_pair(), make_pair(), changed])
    assert pair_key(same, **WEIGHTS) == pair_key(row, **WEIGHTS)
    assert pair_key(row, **WEIGHTS) != pair_key(other, **WEIGHTS)


def test_a_change_of_weights_or_dtype_is_a_miss(policy):
    row = AdapterOff(policy, _media(policy)).rows([make_pair()])[0]
    keys = {pair_key(row, weights=w, dtype=d) for w in ("w", "v") for d in ("float32", "bfloat16")}
    assert len(keys) == 4


def test_figures_survive_the_record():
    for scores in (
        ByBranch(clean=(-1.0, -2.0), relevant=(-3.0,), irrelevant=(-4.0,), text=(-5.0, -6.0)),
        ByBranch(clean=(-1.0, -2.0), text=(-5.0, -6.0)),
    ):
        assert from_record(to_record(make_pair(), scores, "k")) == scores


def test_a_table_with_a_gap_or_a_sentinel_left_in_it_is_refused():
    pair = make_pair()
    whole = ByBranch(clean=(-1.0,) * 3, relevant=(-1.0,), irrelevant=(-1.0,), text=(-1.0,) * 3)
    check_complete([pair], [to_record(pair, whole, "k")])
    for broken in (
        [],
        [to_record(pair, dataclasses.replace(whole, relevant=()), "k")],
        [to_record(pair, dataclasses.replace(whole, clean=(-1.0, math.nan, -1.0)), "k")],
        [to_record(pair, dataclasses.replace(whole, text=(-1.0,)), "k")],
        [to_record(pair, dataclasses.replace(whole, irrelevant=()), "k")],
    ):
        with pytest.raises(StageError, match="a-audio"):
            check_complete([pair], broken)


def test_what_overflowed_is_named_and_not_kept(policy, tmp_path):
    pair = make_pair()

    class Overflowing(AdapterOff):
        def score(self, row):
            scores = super().score(row)
            return dataclasses.replace(scores, clean=(-math.inf, *scores.clean[1:]))

    media, cache = _media(policy), LogpCache(tmp_path)
    broken, sound = (
        Cached(source(policy, media), cache, weights="w", dtype="float32") for source in (Overflowing, AdapterOff)
    )
    [figures] = broken.figures([pair])
    with pytest.raises(StageError, match=r"of 1 pairs are infinite, for instance of a-audio"):
        check_finite([to_record(pair, figures, "k")])
    [whole] = sound.figures([pair])
    check_finite([to_record(pair, whole, "k")])
    assert whole.clean[1:] == figures.clean[1:] and math.isfinite(whole.clean[0])


def test_a_tower_output_that_cannot_be_read_is_made_anew(tmp_path):
    folder = EmbedFolder(tmp_path, 1 << 20)
    entry = Encoded(vectors=torch.ones(2, 3), grid_thw=(1, 2, 3))
    for key, spoil in (("aa1", lambda data: data[:-5]), ("bb2", lambda data: b""), ("cc3", lambda data: data)):
        folder.put(key, entry)
        path = tmp_path / key[:2] / f"{key}.safetensors"
        path.write_bytes(spoil(path.read_bytes()))
    assert [folder.get(key) is None for key in ("aa1", "bb2", "cc3")] == [True, True, False]
    assert not (tmp_path / "aa" / "aa1.safetensors").exists()
    folder.put("aa1", entry)
    found = folder.get("aa1")
    assert found is not None and found.vectors.equal(entry.vectors) and found.grid_thw == (1, 2, 3)


def test_a_tenth_of_the_quota_is_free_after_removing_and_the_oldest_go(tmp_path):
    entry = Encoded(vectors=torch.ones(100, 10), grid_thw=(0, 0, 0))
    EmbedFolder(tmp_path / "one", 1 << 20).put("k0", entry)
    size = next((tmp_path / "one").rglob("*.safetensors")).stat().st_size
    folder = EmbedFolder(tmp_path / "many", 20 * size)
    for number in range(21):
        folder.put(f"{number:02d}", entry)
        os.utime(tmp_path / "many" / f"{number:02d}" / f"{number:02d}.safetensors", (number, number))
    left = sorted(path.stem for path in (tmp_path / "many").rglob("*.safetensors"))
    assert len(left) <= 20 and left[-1] == "20" and left[0] > "00"
    folder._make_room()
    assert len(list((tmp_path / "many").rglob("*.safetensors"))) == len(left), "within the quota nothing goes"


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
    pair = make_pair(clip="", swap=None)
    media.ensure(policy, [pair])
    sample = pair_samples(media, pair, Wanted()).clean[0]
    assert not sample.kind.any()
    assert media.encoder_calls == 0
