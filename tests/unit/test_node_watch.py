"""What a node does, sampled into a spool: figures, names, and numbering that goes on."""

import time
from pathlib import Path

from avere_ray.metrics import read_events
from avere_ray.tracking.node import NodeWatch, parse_gpus


def samples(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(event.step, event.metrics) for event in read_events(folder / "system-a-b.jsonl")]


def test_a_node_is_sampled_and_its_numbering_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        watch = NodeWatch(tmp_path, 0.005, node="a.b")
        had = len(samples(tmp_path))
        while len(samples(tmp_path)) < had + 2:
            time.sleep(0.005)
        watch.close()
    found = samples(tmp_path)
    assert [step for step, _ in found] == list(range(len(found)))
    figures = found[-1][1]
    assert 0 <= figures["system/a-b/cpu_percent"] <= 100
    assert 0 < figures["system/a-b/memory_percent"] < 100
    assert figures["system/a-b/disk_free_gb"] >= 0


def test_gpus_are_numbered_and_what_they_do_not_report_is_left_out() -> None:
    assert parse_gpus("35, 1024, 250.5\n0, 3, [N/A]\n") == {
        "gpu0_percent": 35.0, "gpu0_memory_mb": 1024.0, "gpu0_power_w": 250.5,
        "gpu1_percent": 0.0, "gpu1_memory_mb": 3.0,
    }  # fmt: skip
