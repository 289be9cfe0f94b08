"""Batches on their way through a pool: how they are cut, which engine gets them, what is counted."""

import threading
from collections.abc import Iterator

import pytest

from actors.calls import Call, Line, Meter, cut, wanted_engines
from avere_ray.records import Query, Rollout


def about(*clips: str) -> list[Query]:
    return [
        Query(query_id=f"q{i}", clip_id=clip, modality="video", task="t", prompt="p") for i, clip in enumerate(clips)
    ]


def places(calls: Iterator[Call]) -> list[tuple[int, ...]]:
    return [call.at for call in calls]


def test_a_clip_is_not_cut_through() -> None:
    assert places(cut(about(*"aaabbbccc"), 5)) == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert places(cut(about(*"aaabbbccc"), 6)) == [(0, 1, 2, 3, 4, 5), (6, 7, 8)]


def test_a_clip_with_more_queries_than_a_batch_holds_is_cut_as_seldom_as_possible() -> None:
    assert places(cut(about(*"abbbbbc"), 2)) == [(0,), (1, 2), (3, 4), (5, 6)]


def test_scattered_queries_of_a_clip_are_brought_together_where_all_are_there() -> None:
    queries = about(*"abcabc")
    assert places(cut(queries, 2)) == [(0, 3), (1, 4), (2, 5)]
    assert places(cut(iter(queries), 2)) == [(0, 1), (2, 3), (4, 5)], "a source is taken as it comes"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_every_query_is_in_one_batch(size: int) -> None:
    queries = about(*"aabccccdeeeeeeea")
    calls = list(cut(queries, size))
    assert sorted(place for call in calls for place in call.at) == list(range(len(queries)))
    assert all(len(call.at) <= size for call in calls)
    assert all(queries[place] is query for call in calls for place, query in zip(call.at, call.queries, strict=True))


def test_batches_go_home_and_an_idle_engine_takes_from_the_end() -> None:
    queries = about(*[f"clip{i}" for i in range(20)])
    homes = {call.at: call.key % 2 for call in cut(queries, 1)}
    with Line(queries, size=1, engines=2, ahead=1) as line:
        first = [line.take(0) for _ in range(sum(home == 0 for home in homes.values()))]
        assert [call.at for call in first if call] == [at for at, home in homes.items() if home == 0]
        last = max(at for at, home in homes.items() if home == 1)
        stolen = line.take(0)
        assert stolen is not None and stolen.at == last
        own = line.take(1)
        assert own is not None and own.at == min(at for at, home in homes.items() if home == 1)


def test_what_is_given_back_comes_next() -> None:
    with Line(about(*"abc"), size=1, engines=1, ahead=1) as line:
        call = line.take(0)
        assert call is not None and call.at == (0,)
        line.give_back(call)
        assert len(line) == 3
        assert line.take(0) is call


def test_a_slow_source_holds_up_nobody_and_is_not_read_far_ahead() -> None:
    go, taken = threading.Event(), []

    def source() -> Iterator[Query]:
        for query in about(*"abcdefgh"):
            taken.append(query.query_id)
            yield query
            if query.query_id == "q1":
                assert go.wait(30)

    with Line(source(), size=1, engines=1, ahead=2) as line:
        while not len(line):
            line.wait(0.1)
        assert line.open
        first = line.take(0)
        assert first is not None and first.at == (0,)
        assert line.take(0) is None, "the source has stopped after two, and the second may still grow"
        go.set()
        found = [first.at]
        while line.open or len(line):
            line.wait(0.1)
            assert len(line) <= 2
            if (call := line.take(0)) is not None:
                found.append(call.at)
        assert found == [(i,) for i in range(8)]


def test_what_a_source_raises_is_raised_where_batches_are_taken() -> None:
    def source() -> Iterator[Query]:
        yield about("a")[0]
        raise RuntimeError("the decoder gave up")

    with Line(source(), size=1, engines=1, ahead=2) as line:
        while line.open:
            line.wait(0.1)
        with pytest.raises(RuntimeError, match="gave up"):
            line.take(0)


@pytest.mark.parametrize(
    ("running", "waiting", "most", "wanted"), [(1, 0, 4, 1), (1, 1, 4, 2), (2, 1, 4, 2), (2, 9, 4, 3), (4, 99, 4, 4)]
)
def test_one_more_engine_when_each_has_another_batch_waiting(
    running: int, waiting: int, most: int, wanted: int
) -> None:
    assert wanted_engines(running, waiting, most) == wanted


def test_throughput_counts_the_seconds_with_work_and_no_others() -> None:
    meter, answer = Meter(), [[_rollout(3), _rollout(5)], [_rollout(2)]]
    meter.sent(0, 2, 4, now=10.0)
    meter.sent(1, 1, 3, now=11.0)
    meter.ended(0, 2, answer, now=12.0)
    meter.ended(1, 1, None, now=13.0)
    meter.sent(0, 1, 0, now=20.0)
    meter.ended(0, 1, [[0.5, 0.1]], now=22.0)
    figures = meter.figures()
    assert (figures["requests"], figures["tokens"], figures["busy_seconds"]) == (3, 10, 5.0)
    assert (figures["tokens_per_s"], figures["engine_0_tokens_per_s"], figures["engine_1_requests"]) == (2.0, 2.5, 0)
    assert (figures["in_flight_max"], figures["batches_waiting_max"]) == (3, 4)
    assert (figures["engine_0_in_flight_max"], figures["engine_1_in_flight_max"]) == (2, 1)


def _rollout(tokens: int) -> Rollout:
    return Rollout(rollout_id="q#0", query_id="q", clip_id="c", index=0, text="", token_ids=tuple(range(tokens)),
                   finish_reason="stop", adapter_version=0, seed=0)  # fmt: skip
