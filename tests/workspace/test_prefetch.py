import threading
import time
from collections.abc import Iterator

import pytest

from lgbatch.workspace.prefetch import prefetch


@pytest.fixture(autouse=True)
def no_thread_leaks() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_results_come_in_order() -> None:
    def work(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i * i

    assert list(prefetch(work, range(30), threads=4, depth=6)) == [i * i for i in range(30)]
    assert list(prefetch(work, [], threads=4, depth=6)) == []
    assert list(prefetch(work, range(3), threads=4, depth=6)) == [0, 1, 4]


def test_work_runs_ahead_up_to_the_depth() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    results = prefetch(lambda i: i, items(), threads=2, depth=5)
    assert taken == []
    for i, result in enumerate(results):
        assert result == i
        assert len(taken) == min(20, i + 5)


def test_threads_work_concurrently() -> None:
    meeting = threading.Barrier(2, timeout=5)  # raises BrokenBarrierError unless two threads wait at once
    assert sorted(prefetch(lambda _: meeting.wait(), range(2), threads=2, depth=2)) == [0, 1]


def test_an_exception_of_work_is_raised_in_place_of_its_result() -> None:
    def work(i: int) -> int:
        if i == 3:
            raise ValueError("third")
        return i

    results = prefetch(work, range(100), threads=2, depth=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="third"):
        next(results)


def test_an_exception_of_the_items_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(prefetch(lambda i: i, items(), threads=2, depth=4))


def test_closing_early_waits_for_running_items_and_drops_pending_ones() -> None:
    started, finished, go_on = [], [], threading.Event()

    def work(i: int) -> int:
        started.append(i)
        if i:
            assert go_on.wait(timeout=5)
        finished.append(i)
        return i

    results = prefetch(work, range(100), threads=1, depth=10)
    assert next(results) == 0
    timer = threading.Timer(0.02, go_on.set)
    timer.start()
    results.close()
    timer.join()
    assert started == finished
    assert len(started) <= 2
