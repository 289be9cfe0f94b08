"""Which frames of a clip are wanted, and which packets have to be decoded for them. Arithmetic on timestamps only.

The plan follows from the keyframe index of the clip: a wanted frame needs the packets from the keyframe before it up to
its own. Stretches of packets that no wanted frame needs are jumped over; where all stretches touch, the plan is one
linear pass.
"""

from dataclasses import dataclass

import numpy as np

from avere_ray.config import DecodeConfig

WORTH_A_JUMP = 8
"""Fewer packets than this are decoded rather than jumped over: after a jump the decoder has to fill up again."""


@dataclass(frozen=True, slots=True)
class Run:
    """Packets that pass through the decoder in one go: `first` to `last`, both included, counted in file order."""

    first: int
    last: int


def wanted_times(spec: DecodeConfig, duration_s: float) -> np.ndarray:
    """Times of the wanted frames, float64 [T], seconds from the start of a clip of `duration_s` seconds, ascending.

    `spec.times_s` where there are any; else the centres of T equal parts, where T is `spec.frames`, or with `spec.fps`
    the nearest whole number to duration x fps, at least 1 and at most `spec.max_frames`.
    """
    if spec.times_s:
        return np.asarray(spec.times_s, dtype=np.float64)
    count = spec.frames
    if spec.fps is not None:
        count = max(1, min(round(duration_s * spec.fps), spec.max_frames))
    return (np.arange(count) + 0.5) * duration_s / count


def nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the nearest of the ascending `times` [N] for each of `wanted` [T]; the earlier one on a tie."""
    midpoints = (times[:-1] + times[1:]) / 2
    return np.searchsorted(midpoints, wanted, side="left")


def decoding_runs(times: np.ndarray, keyframes: np.ndarray, wanted: np.ndarray) -> list[Run]:
    """Runs of packets, in file order, that give the frames at the indices `wanted`, and little else.

    Args:
        times: presentation time of each packet, float64 [N], seconds, in file order; NaN where the file tells none.
        keyframes: whether decoding may start at a packet, bool [N].
        wanted: indices of packets.

    A frame shown before the keyframe that precedes it in the file may need the group before (an open group of
    pictures), so its run starts there. Without full timestamps the plan is one run from the start.
    """
    if np.isnan(times).any():
        return [Run(0, len(times) - 1)]
    starts = np.flatnonzero(keyframes)
    stretches = []
    for index in np.unique(wanted):
        fit = starts[(starts <= index) & (times[starts] <= times[index])]
        stretches.append((int(fit[-1]) if len(fit) else 0, int(index)))
    runs: list[Run] = [Run(0, -1)]
    for first, last in sorted(stretches):
        if first - runs[-1].last <= WORTH_A_JUMP:
            runs[-1] = Run(runs[-1].first, max(runs[-1].last, last))
        else:
            runs.append(Run(first, last))
    return [run for run in runs if run.last >= 0]
