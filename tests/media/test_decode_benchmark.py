"""The decode benchmark compares ways that give the same frames, or says which does not."""

from pathlib import Path

import pytest

from benchmarks import decode
from benchmarks.clips import write_clip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "b.mp4", seconds=2, width=320, height=180)


def test_all_ways_give_the_same_frames(path: Path) -> None:
    decode._check_same(path, decode.WAYS)


def test_a_way_that_gives_other_frames_is_named(path: Path) -> None:
    def reversed_frames(path: Path) -> decode.Result:
        frames, sound = decode.ours(path)
        return frames[::-1], sound

    def no_sound(path: Path) -> decode.Result:
        return decode.ours(path)[0], decode.ours(path)[1][:0]

    for name, way in (("reversed", reversed_frames), ("silent", no_sound)):
        with pytest.raises(ValueError, match=name):
            decode._check_same(path, {name: way})
