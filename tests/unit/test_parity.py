"""The parity gate: what passes, what stops the run, and what it says then."""

import random
from dataclasses import replace

import pytest

from avere_ray.errors import ParityError
from avere_ray.parity import Scored, check_applied, choose_probes, compare, ways_to_show
from avere_ray.records import Query


def _query(name, modality="video"):
    return Query(query_id=name, clip_id="c", modality=modality, task="t", prompt="p")


PROBE = [_query("q")]
GRID = {"video": (4, 6, 6), "seconds": (1.0,), "audio": (50,)}


def _scored(ids, logps, **grid):
    return [Scored(ids, logps, {**GRID, **grid})]


SAME = _scored([1, 2, 3], [-0.5, -1.0])


def _compare(engine, learner, version=0):
    return compare(PROBE, engine, learner, max_abs_diff=1e-4, adapter_version=version)


def test_equal_figures_pass_with_their_largest_difference():
    assert _compare(SAME, _scored([1, 2, 3], [-0.5, -1.00005])) == pytest.approx(5e-5)


@pytest.mark.parametrize(
    "prompt", [[1, 1, 2, 3], [1, 2], [1, 9, 3]], ids=["double start token", "fewer media tokens", "another token"]
)
def test_other_prompt_tokens_stop_the_run(prompt):
    with pytest.raises(ParityError, match=r"different prompts for q.*first difference at token"):
        _compare(SAME, _scored(prompt, [-0.5, -1.0]))


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("video", (4, 8, 6), r"video is 4 x 6 x 6 in the engine and 4 x 8 x 6 in the learner"),
        ("seconds", (2.0,), r"seconds is 1 in the engine and 2 in the learner"),
        ("audio", (), r"audio is 50 in the engine and absent in the learner"),
    ],
)
def test_other_media_grids_stop_the_run(name, other, words):
    with pytest.raises(ParityError, match=rf"other media grids for q: {words}"):
        _compare(SAME, _scored([1, 2, 3], [-0.5, -1.0], **{name: other}))


@pytest.mark.parametrize("strange", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_no_number_is_no_agreement(strange):
    for engine, learner in ((strange, -1.0), (-1.0, strange), (strange, strange)):
        with pytest.raises(ParityError, match="response token 0 of q"):
            _compare(_scored([1], [engine]), _scored([1], [learner]))


def test_a_query_about_one_medium_is_also_shown_with_that_one_alone():
    queries = [_query("v"), _query("a", "audio"), _query("b", "audio_video")]
    assert [(q.query_id, shown) for q, shown in ways_to_show(queries)] == [
        ("v", "audio_video"), ("v", "video"), ("a", "audio_video"), ("a", "audio"), ("b", "audio_video")
    ]  # fmt: skip


def test_another_log_prob_stops_the_run_and_names_the_token():
    with pytest.raises(ParityError, match=r"response token 1 of q has log-prob -1\.0+ in the engine and -1\.1"):
        _compare(SAME, _scored([1, 2, 3], [-0.5, -1.1]))


def test_with_an_adapter_the_message_points_at_its_keys():
    with pytest.raises(ParityError, match=r"adapter version 2.*prefix"):
        _compare(SAME, _scored([1, 2, 3], [-0.5, -1.1]), version=2)


def test_a_missing_log_prob_is_not_overlooked():
    with pytest.raises(ValueError, match="zip"):
        _compare(SAME, _scored([1, 2, 3], [-0.5]))


def test_probes_take_the_modalities_in_turn():
    queries = [_query(f"v{i}") for i in range(3)] + [_query("a", "audio"), _query("b", "audio_video")]
    assert [q.query_id for q in choose_probes(queries, 4)] == ["v0", "a", "b", "v1"]
    assert [q.query_id for q in choose_probes(queries[:2], 4)] == ["v0", "v1"]


def test_probes_are_about_several_clips():
    modalities = ("video", "audio", "audio_video")
    queries = [replace(_query(f"{clip}{m}", m), clip_id=clip) for clip in "stu" for m in modalities]
    assert [q.clip_id for q in choose_probes(queries, 5)] == ["s", "t", "u", "t", "s"]
    assert len({q.query_id for q in choose_probes(queries, 9)}) == 9


def _noisy(values, scale, seed):
    rng = random.Random(seed)
    return _scored([1], [v + rng.gauss(0.0, scale) for v in values])


@pytest.mark.parametrize("seed", range(5))
def test_an_adapter_that_the_engine_ignores_is_found_within_a_wide_bound(seed):
    """Each token differs by less than bfloat16 may; all of them together by far more than chance."""
    rng = random.Random(seed)
    base = [rng.uniform(-3.0, 0.0) for _ in range(200)]
    changed = [v + rng.gauss(0.0, 0.1) for v in base]
    without, learner = _scored([1], base), _scored([1], changed)
    ignored, applied = _noisy(base, 0.02, seed), _noisy(changed, 0.02, seed)
    compare(PROBE, ignored, learner, max_abs_diff=0.5, adapter_version=3)
    with pytest.raises(ParityError, match=r"answers as without adapter version 3.*200 response tokens"):
        check_applied(ignored, learner, without, adapter_version=3)
    assert check_applied(applied, learner, without, adapter_version=3)


def test_an_adapter_smaller_than_the_noise_cannot_be_told():
    base = [-1.0] * 100
    changed = [v + 1e-4 for v in base]
    args = (_scored([1], changed), _scored([1], base))
    assert not check_applied(_noisy(changed, 0.02, 0), *args, adapter_version=1)
    assert not check_applied(_scored([1], base), _scored([1], base), _scored([1], base), adapter_version=1)
