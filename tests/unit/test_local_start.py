"""A local Ray that does not come up; Ray is played, since a real start takes seconds."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.config import RayConfig
from avere_ray.errors import ClusterError
from jobs import session

SLOW = "The current node timed out during startup. This could happen because"


def played(monkeypatch: pytest.MonkeyPatch, *ends: str) -> list[str]:
    """Starts that end in these words, one after the other; those after the last succeed. What was called."""
    coming, called = iter(ends), list[str]()

    def init(**_: Any) -> None:
        called.append("init")
        if words := next(coming, ""):
            raise Exception(words)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: called.append("shutdown")))
    return called


def test_a_start_that_was_too_slow_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = played(monkeypatch, SLOW)
    session._start_local(RayConfig())
    assert called == ["init", "shutdown", "init"]
    assert "starting it once more" in capsys.readouterr().out


@pytest.mark.parametrize(("ends", "starts"), [((SLOW, SLOW), 2), (("no shared memory",), 1)])
def test_what_does_not_start_is_told_with_its_settings(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[str, ...], starts: int
) -> None:
    called = played(monkeypatch, *ends)
    with pytest.raises(ClusterError, match=r"cannot start a local Ray with ray\.num_cpus=2") as caught:
        session._start_local(RayConfig(num_cpus=2))
    assert ends[-1].partition(".")[0] in str(caught.value)
    assert called.count("init") == starts
