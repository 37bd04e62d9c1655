"""Work that is done in threads ahead of the one who needs it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def ahead(work: Callable[[Given], Result], items: Iterable[Given], *, threads: int, depth: int) -> Iterator[Result]:
    """Yield work(item) in order, at most `depth` results being made or waiting.

    What `work` raises is raised here, when its turn comes; then, and when the caller stops early, what has not begun
    is dropped and what has begun is waited for, so that no thread outlives the loop.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=getattr(work, "__name__", "work"))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
