"""Work that is done in threads ahead of the one who needs it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def ahead(work: Callable[[Given], Result], items: Iterable[Given], *, threads: int, depth: int) -> Iterator[Result]:
    """Yield work(item) in order, at most `depth` results being made or waiting.

    What `work` raises is raised here, when its turn comes; then, and when the caller stops early, what has not begun
    is dropped and what has begun is waited for, so that no thread outlives the loop.
    """
    with contextlib.closing(_Workers(work, threads)) as workers:
        for item in items:
            workers.give(item)
            if workers.waiting >= depth:
                yield workers.next()
        while workers.waiting:
            yield workers.next()


class _Workers(Generic[Given, Result]):
    """Threads, and two queues: a ThreadPoolExecutor takes several times as long to pass something on and back."""

    def __init__(self, work: Callable[[Given], Result], threads: int) -> None:
        self._work = work
        self._todo: SimpleQueue[tuple[int, Given] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Result | _Raised]] = SimpleQueue()
        self._early: dict[int, Result | _Raised] = {}
        self._given = self._taken = 0
        name = getattr(work, "__name__", "work")
        self._threads = [Thread(target=self._run, name=f"{name}_{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Results that were not taken yet, made or not."""
        return self._given - self._taken

    def give(self, item: Given) -> None:
        """Let a thread work on it."""
        self._todo.put((self._given, item))
        self._given += 1

    def next(self) -> Result:
        """What came of the first item whose result was not taken yet."""
        number = self._taken
        self._taken += 1
        while number not in self._early:
            made_of, result = self._done.get()
            self._early[made_of] = result
        result = self._early.pop(number)
        if isinstance(result, _Raised):
            raise result.error
        return result

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        with contextlib.suppress(Empty):
            while True:
                self._todo.get_nowait()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (given := self._todo.get()) is not None:
            number, item = given
            try:
                self._done.put((number, self._work(item)))
            except BaseException as error:
                self._done.put((number, _Raised(error)))


class _Raised:
    """What the work raised, which may not be told from a result that is an exception itself."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
