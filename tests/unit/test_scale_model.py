"""The capacity model: nothing is lost, limits hold, and the tables in cluster/README.md are what it gives."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale_model import Assumptions, main, rates, scale, simulate, table, training

ROOT = Path(__file__).parents[2]
CALM = replace(Assumptions(), lost_per_node_hour=0.0)


def test_without_losses_the_slower_stage_sets_the_pace() -> None:
    found = simulate(500, 4, 2, decode_s=10.0, sample_s=20.0, a=CALM, seed=0)
    assert found.done == 500
    assert found.redone == 0
    assert found.seconds == pytest.approx(10.0 + 250 * 20.0)  # the first shard's decoding, then 250 rounds of two
    assert found.largest_buffer <= 4
    slow_decode = simulate(500, 1, 8, decode_s=10.0, sample_s=20.0, a=CALM, seed=0)
    assert slow_decode.seconds == pytest.approx(500 * 10.0 + 20.0)
    assert slow_decode.decode_busy == pytest.approx(1.0, abs=0.01)


def test_with_losses_every_shard_is_done_and_it_takes_longer() -> None:
    lossy = replace(CALM, lost_per_node_hour=20.0)
    found = simulate(300, 3, 3, decode_s=30.0, sample_s=30.0, a=lossy, seed=1)
    calm = simulate(300, 3, 3, decode_s=30.0, sample_s=30.0, a=CALM, seed=1)
    assert found.done == calm.done == 300
    assert found.redone > 0
    assert found.seconds > calm.seconds
    assert found == simulate(300, 3, 3, decode_s=30.0, sample_s=30.0, a=lossy, seed=1)


def test_training_counts_tokens_and_operations() -> None:
    a = Assumptions()
    assert a.media_tokens == 4 * 64 + 125
    found = training(41_687, a)
    branch = a.media_tokens + 60 + 100
    assert found.separate_tokens == 4 * branch
    whole_tree = branch + 2 * 100 + a.media_tokens / 2 + 160
    assert found.tree_tokens == pytest.approx(whole_tree, abs=0.1)
    assert sum(found.shares.values()) == pytest.approx(100, abs=0.3)
    assert found.hours < found.separate_hours
    assert training(2 * 41_687, a).gpu_hours == pytest.approx(2 * found.gpu_hours, rel=0.01)


def test_measured_constants_are_those_of_the_benchmarks() -> None:
    text = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    a = Assumptions()
    (share,) = re.findall(r"^\| tree, reference and features cached \|.*\| (\d+) % \|$", text, re.M)
    assert a.tree_share == int(share) / 100
    cases = re.findall(r"^\| [ab]: (\d+) s \d+p[^|]*\| ([\d.]+) \|", text, re.M)
    assert [a.long_clip, a.short_clip] == [(float(seconds), float(rate)) for seconds, rate in cases]
    for length, rate in (a.long_clip, a.short_clip):
        assert replace(a, clip_s=length).decode_s == pytest.approx(1 / rate)


def test_the_readmes_words_are_the_models() -> None:
    a = Assumptions()
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    largest, shares = scale(10_000_000, 16, a), training(41_687, a).shares
    for words in (
        f"({rates(a)[0]:.0f} clips/s a node)",
        f"while {largest.decode_nodes} CPU nodes decode ahead",
        f"{largest.redone_shards} of 10,000 are done twice",
        f"learner has {shares['learner']:g} %, references {shares['reference']:g} %",
        f"({a.tree_share:.0%}".replace("%", " %"),
    ):
        assert words in readme


def test_more_nodes_take_less_time_and_the_same_store() -> None:
    few, many = scale(200_000, 1, CALM), scale(200_000, 4, CALM)
    assert many.hours < few.hours
    assert many.store_tib == few.store_tib
    assert many.rollouts_per_s > 3 * few.rollouts_per_s
    decode, gpu = rates(CALM)
    assert many.decode_nodes * decode > 4 * gpu


def test_the_tables_in_the_readme_are_the_models() -> None:
    a = Assumptions()
    scales = [scale(10_000, 1, a), scale(1_000_000, 4, a), scale(10_000_000, 16, a)]
    found = training(41_687, a)
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in table(found, scales, a).splitlines() if line.startswith("| 1")]
    assert len(rows) == 3
    for row in rows:
        assert row in readme
    assert f"{found.hours:g} h ({found.gpu_hours:g} GPU hours, cost {found.cost:g})" in readme
    assert f"{found.separate_hours:g} h" in readme


def test_the_command_prints_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--clips=20000", "--nodes=2", "--pairs=100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["clips"] for s in found["scale"]] == [20, 2000, 20000]
    with pytest.raises(SystemExit):
        main(["--clips=0"])
