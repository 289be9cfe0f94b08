"""Which frames are wanted, and that the packets chosen for them are enough and few."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avere_ray.config import DecodeConfig
from avere_ray.errors import ConfigError
from avere_ray.media.sampling import WORTH_A_JUMP, Run, decoding_runs, nearest, wanted_times


def wanted(duration: float, **sampling: object) -> list[float]:
    return wanted_times(DecodeConfig(**sampling), duration).tolist()  # type: ignore[arg-type]


def test_uniform_frames_are_the_centres_of_equal_parts() -> None:
    assert wanted(8.0, frames=4) == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize(
    ("duration", "expected"), [(2.0, [0.25, 0.75, 1.25, 1.75]), (0.1, [0.05]), (8.0, [1.0, 3.0, 5.0, 7.0])]
)
def test_frames_per_second_up_to_a_cap(duration: float, expected: list[float]) -> None:
    assert wanted(duration, fps=2.0, max_frames=4) == pytest.approx(expected)


def test_times_are_taken_as_given() -> None:
    assert wanted(9.0, times_s=(0.0, 2.5, 7.0)) == [0.0, 2.5, 7.0]


@pytest.mark.parametrize(
    "sampling", [{"times_s": (1.0, 1.0)}, {"times_s": (2.0, 1.0)}, {"times_s": (1.0,), "fps": 2.0}]
)
def test_contradicting_specs_are_refused(sampling: dict[str, object]) -> None:
    with pytest.raises((ConfigError, ValueError), match="times_s"):
        DecodeConfig(**sampling)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True),
    targets=st.lists(st.floats(-10, 10_010), min_size=1, max_size=20),
)
def test_the_nearest_frame_is_nearest(times: list[int], targets: list[float]) -> None:
    ordered = np.sort(np.array(times, dtype=float))
    chosen = ordered[nearest(ordered, np.array(targets))]
    assert np.array_equal(np.abs(chosen - targets), np.abs(ordered[None] - np.array(targets)[:, None]).min(axis=1))


def test_the_earlier_frame_wins_a_tie() -> None:
    assert nearest(np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.5])).tolist() == [0, 1]


def test_a_long_clip_is_jumped_through() -> None:
    keyframes = np.arange(300) % 60 == 0
    assert decoding_runs(np.arange(300.0), keyframes, np.array([75, 200, 205])) == [Run(60, 75), Run(180, 205)]


def test_touching_runs_are_one_linear_pass() -> None:
    keyframes = np.arange(100) % 5 == 0
    assert decoding_runs(np.arange(100.0), keyframes, np.arange(2, 100, 5)) == [Run(0, 97)]


def test_without_timestamps_everything_is_decoded() -> None:
    times = np.array([0.0, np.nan, 2.0, 3.0])
    assert decoding_runs(times, np.ones(4, dtype=bool), np.array([3])) == [Run(0, 3)]


def test_frames_before_their_keyframe_need_the_group_before() -> None:
    times = np.arange(60.0)
    times[40:43] = 42, 40, 41  # in an open group of pictures, frames 40 and 41 come after keyframe 42 in the file
    keyframes = np.isin(np.arange(60), [0, 20, 40])
    assert decoding_runs(times, keyframes, np.array([41])) == [Run(20, 41)]
    assert decoding_runs(times, keyframes, np.array([40, 41])) == [Run(20, 41)]
    assert decoding_runs(times, keyframes, np.array([43])) == [Run(40, 43)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_runs_hold_every_wanted_packet_after_a_keyframe_and_never_overlap(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 200))
    keyframes = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    chosen = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12)))
    runs = decoding_runs(np.arange(float(count)), keyframes, chosen)
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(runs))
    assert all(r.first == 0 or keyframes[r.first] for r in runs)
    for index in chosen:
        holding = [r for r in runs if r.first <= index <= r.last]
        assert len(holding) == 1
        between = np.flatnonzero(keyframes[: index + 1])
        assert holding[0].first <= (between[-1] if len(between) else 0)
    skipped = sum(b.first - a.last - 1 for a, b in itertools.pairwise(runs))
    assert skipped == 0 or skipped >= WORTH_A_JUMP * (len(runs) - 1)
