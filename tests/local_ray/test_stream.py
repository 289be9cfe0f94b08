"""The stream of shares on a machine whose CPUs are all taken: it moves, and every row reaches its worker."""

import os
import random
import time
from typing import Any

import pytest

from avere_ray.data import in_order, ordered_stream

pytestmark = pytest.mark.timeout(300)
ROWS = 62


def test_rows_arrive_in_order_at_the_worker_they_belong_to(local_ray: Any) -> None:
    class Unequal:
        """Rows take between 0 and `longest_s` seconds to make."""

        def __init__(self, longest_s: float) -> None:
            self.longest_s = longest_s

        def __call__(self, table: Any) -> Any:
            time.sleep(random.Random(table["number"][0].as_py()).choice([0.0, 0.0, 0.1, 1.0]) * self.longest_s)
            return table

    class Consumer:
        def read(self, shard: Any, wait_s: float) -> list[int]:
            numbers: list[int] = []
            for batch in shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                numbers += batch["number"].to_pylist()
                time.sleep(wait_s)
            return numbers

    stream = ordered_stream([{"number": i} for i in range(ROWS)], Unequal, {"longest_s": 0.3}, stall_s=120)
    stream.context.execution_options = in_order()
    shards = stream.streaming_split(2, equal=True)
    workers = [local_ray.remote(num_cpus=1)(Consumer).remote() for _ in range(2)]
    try:
        found = local_ray.get(
            [w.read.remote(s, wait) for w, s, wait in zip(workers, shards, (0.0, 0.05), strict=True)], timeout=240
        )
    finally:
        for worker in workers:
            local_ray.kill(worker)
    assert found == [list(range(0, ROWS, 2)), list(range(1, ROWS, 2))]


def test_a_stream_whose_consumer_is_slow_leaves_it_the_processor(local_ray: Any) -> None:
    class Wide:
        def __call__(self, table: Any) -> Any:
            return table.append_column("filler", [[bytes(4_000_000)]])

    def used() -> float:
        times = os.times()
        return times.user + times.system

    stream = ordered_stream([{"number": i} for i in range(ROWS)], Wide, {}, stall_s=120)
    batches = iter(stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    for _ in range(3):
        next(batches)
    time.sleep(1.0)  # until what may be made ahead has been made
    before = used()
    time.sleep(3.0)
    share = (used() - before) / 3.0
    assert len(list(batches)) == ROWS - 3
    assert share < 0.5, "the execution loop turns without a pause"
