"""What comes of pairs: they are ordered, their features read ahead, and matched in threads."""

import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from lgbatch.config import Settings
from lgbatch.matching import capacity
from lgbatch.matching.backend import Points
from lgbatch.matching.image_cache import EncodedImageCache
from lgbatch.matching.lightglue import Matcher, no_matches
from lgbatch.matching.schedule import Batch, plan
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Failure, Features, Matches, Pair
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import until_stopped


def open_matchers(models: Path, settings: Settings) -> list[Matcher]:
    """Open a matcher for each worker. Raises ModelError as models.open_stages.

    Every GPU that the driver shows gets one of its own (CUDA_VISIBLE_DEVICES hides the others); on a CPU the workers
    share one, each on a core. --workers says how many.
    """
    first = Matcher(models, settings)
    if first.stages.device == "cpu":
        return [first] * (settings.workers or settings.threads or available_cores())
    count = min(len(gpus()), settings.workers or len(gpus()))
    return [first, *(Matcher(models, settings, number=number) for number in range(1, count))]


Outcome = tuple[Pair, Matches | Failure]


def match_pairs(
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
    for done in prefetch(work, until_stopped(batches), threads=workers, depth=2 * workers):
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
        self._stems = EncodedImageCache(lambda name: matcher.encode(read(name)), capacity, uses)

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
