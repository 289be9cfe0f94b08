"""Errors cross process boundaries unchanged, and each says how the command ends."""

import pickle

import pytest

from avere_ray import errors
from avere_ray.errors import AvereError, ClipDecodeError, RowError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AvereError)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (ClipDecodeError, RowError)])
def test_an_error_survives_pickling(kind: type[AvereError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what was wrong")))
    assert (type(copy), str(copy), copy.exit_code) == (kind, "what was wrong", kind.exit_code)


@pytest.mark.parametrize("kind", [ClipDecodeError, RowError])
def test_an_error_about_one_input_keeps_its_reason(kind: type[ClipDecodeError] | type[RowError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("no_audio_stream", "clip a has no audio")))
    assert (copy.reason, copy.message, str(copy)) == ("no_audio_stream", "clip a has no audio", "clip a has no audio")


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_ends_as_a_success(kind: type[AvereError]) -> None:
    assert 1 <= kind.exit_code < 126
