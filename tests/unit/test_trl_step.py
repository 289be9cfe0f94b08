"""The comparison with TRL on the smallest shape: the same loss, and the fields of its line."""

import pytest

pytest.importorskip(
    "trl", reason="TRL is a dependency of the benchmarks alone: pip install -c constraints.txt -e '.[bench]'"
)


def test_trl_and_the_tree_give_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.trl_step import measure

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    figures = measure("mini", "cpu", 1)
    assert figures["loss_diff"] < 1e-5
    assert figures["loss_diff_ref_known"] < 1e-5
    assert {"trl_s", "tree_s", "speedup", "trl_ref_known_s", "tree_ref_known_s", "speedup_ref_known"} <= figures.keys()
