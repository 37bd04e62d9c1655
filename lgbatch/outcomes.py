"""What comes of pairs: they are ordered, their features read ahead, and matched in threads."""

import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue

import numpy as np

from lgbatch import capacity
from lgbatch.ahead import ahead
from lgbatch.interrupt import until_stopped
from lgbatch.matcher import Matcher, no_matches
from lgbatch.points import Points
from lgbatch.schedule import Batch, plan
from lgbatch.types import Failure, Features, Matches, Pair

Outcome = tuple[Pair, Matches | Failure]


def outcomes(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], matchers: Sequence[Matcher]
) -> Generator[Outcome, None, None]:
    """Match the pairs, in an order that keeps few images in memory, ahead of the caller.

    There is a thread for each of the `matchers`, which may be one several times. They take the batches of one schedule
    as they come to be free; what is kept of images is where the matcher is, and shared by the threads that have it.
    `counts` has the keypoints of every image, and `read` gives its features; a pair of an image that cannot be read, or
    that does not fit the model, comes with the Failure of that image.
    """
    full = [pair for pair in pairs if counts[pair.a] and counts[pair.b]]
    yield from ((pair, no_matches()) for pair in pairs if not (counts[pair.a] and counts[pair.b]))
    largest = max((counts[name] for pair in full for name in pair), default=1)
    workers = len(matchers)
    kept = max(2 * workers + 2, min(capacity.images(matcher.stages, largest) for matcher in matchers))
    points = sum(counts[pair.a] + counts[pair.b] for pair in full)
    most = min(capacity.tokens(matcher.stages, largest) for matcher in matchers)
    tokens = min(most, points // (2 * workers) + 1)  # few pairs: some for every worker
    uses = Counter(name for pair in full for name in pair)
    each = {id(matcher): _Worker(matcher, read, tokens, kept, uses) for matcher in matchers}
    free: SimpleQueue[_Worker] = SimpleQueue()
    for matcher in matchers:
        free.put(each[id(matcher)])

    def work(batch: Batch) -> list[Outcome]:
        worker = free.get()  # there is one for every thread
        try:
            return worker.match([full[i] for i in batch])
        finally:
            free.put(worker)

    names = sorted(uses)
    ids = {name: i for i, name in enumerate(names)}
    named = np.fromiter((ids[name] for pair in full for name in pair), np.int64, 2 * len(full)).reshape(-1, 2)
    batches = plan([counts[name] for name in names], named, images=kept, tokens=tokens)
    for done in ahead(work, until_stopped(batches), threads=workers, depth=2 * workers):
        yield from done


class _Worker:
    """A matcher with what it keeps of images; `uses` are those of all workers, so where there are several it keeps some
    for longer than it needs them.
    """

    def __init__(
        self,
        matcher: Matcher,
        read: Callable[[str], Features],
        tokens: int,
        capacity: int,
        uses: Mapping[str, int],
    ) -> None:
        self._matching = _Matching(matcher, tokens)
        self._stems = StemCache(lambda name: matcher.stem(read(name)), capacity, uses)

    def match(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """What comes of a batch."""
        failed: list[Outcome] = []
        kept, ready = [], []
        for pair in pairs:
            a, b = self._stem(pair.a), self._stem(pair.b)
            if isinstance(a, Failure):
                failed.append((pair, a))
            elif isinstance(b, Failure):
                failed.append((pair, b))
            else:
                ready.append((a, b))
                kept.append(pair)
        found = zip(kept, self._matching.match(ready), strict=True)
        return failed + [
            (pair, _failure(" ".join(pair), made) if isinstance(made, Exception) else made) for pair, made in found
        ]

    def _stem(self, name: str) -> Points | Failure:
        try:
            return self._stems.get(name)
        except Exception as error:  # ItemError; or ONNX Runtime's, of descriptors that are not the model's
            return _failure(name, error)


def _failure(name: str, error: Exception) -> Failure:
    reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return Failure("match", name, reason, "".join(traceback.format_exception(error)))


class _Matching:
    """A matcher whose batches become smaller when one does not fit into memory, and stay so."""

    def __init__(self, matcher: Matcher, tokens: int) -> None:
        self._matcher, self._tokens = matcher, tokens

    def match(self, pairs: Sequence[tuple[Points, Points]]) -> list[Matches | Exception]:
        """The matches of each pair, or what went wrong with it when it was tried alone."""
        tokens = self._tokens
        try:
            return list(self._matcher.match(pairs, tokens))
        except Exception as error:  # ONNX Runtime has a class for each status code
            if len(pairs) == 1:
                return [error]
            if any(word in str(error).lower() for word in ("memory", "alloc")):
                self._tokens = min(self._tokens, max(1, tokens // 2))
                with suppress(Exception):  # matching again tells what is wrong
                    self._matcher.stages.shrink()
            half = len(pairs) // 2
            return self.match(pairs[:half]) + self.match(pairs[half:])


class StemCache:
    """What images need for all of their pairs, computed once while it is in memory, by whichever thread asks first."""

    def __init__(self, make: Callable[[str], Points], capacity: int, uses: Mapping[str, int]) -> None:
        """Keep the `capacity` images that were used last, and none that was used as often as `uses` says."""
        self._make, self._capacity, self._left = make, capacity, dict(uses)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Points]] = OrderedDict()
        self.made = 0

    def get(self, name: str) -> Points:
        """Return an image's stem; raises what making it raised."""
        with self._lock:
            future = self._kept.get(name)
            mine = future is None
            if future is None:
                future = self._kept[name] = Future()
                self.made += 1
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            self._left[name] -= 1
            if not self._left[name]:
                del self._kept[name]
        if mine:
            try:
                future.set_result(self._make(name))
            except BaseException as error:
                future.set_exception(error)
        return future.result()
