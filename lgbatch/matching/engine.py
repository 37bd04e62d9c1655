"""The matching engine: schedules pairs, reads features ahead, and matches batches in worker threads."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore
from typing import NamedTuple

import numpy as np

from lgbatch.config import Settings
from lgbatch.matching import capacity
from lgbatch.matching.backend import Points
from lgbatch.matching.image_cache import EncodedImageCache
from lgbatch.matching.lightglue import Matcher, no_matches
from lgbatch.matching.schedule import MAX_PADDING, Batch, plan
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.devices import choose_device, has_failed, matching_device, stop_if_lost, warn_gpu_left_out
from lgbatch.types import Failure, Features, Matches, Pair, PairList
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import until_stopped

Outcome = tuple[Pair, Matches | Failure]


def match_pairs(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], matchers: Sequence[Matcher]
) -> Generator[Outcome, None, None]:
    """Match pairs ahead of the caller, in an order that keeps few images in memory. Yields each pair once.

    Starts one thread per entry of `matchers`, which may list a matcher several times. Idle threads take the next batch
    of one schedule. All threads of a matcher share its cache of encoded images. `counts` has the number of keypoints of
    each image; `read` returns the features of an image.

    A pair yields a Failure if an image cannot be read or encoded, or if matching it alone fails. A batch that fails is
    halved until the pairs to blame are alone. A pair with an image without keypoints yields no matches.

    Raises LgbatchError if a device fails and does not recover.
    """
    pairs = PairList.of(pairs)
    has_keypoints = pairs.between({name for name in pairs.images() if counts[name]})
    yield from ((pair, no_matches()) for pair in pairs.where(~has_keypoints))
    matchable = pairs.where(has_keypoints)
    uses = {name: count for name, count in zip(matchable.names, matchable.uses().tolist(), strict=True) if count}
    limits = _limits(uses, counts, matchers)
    workers = {id(matcher): _Worker(matcher, read, limits, uses) for matcher in matchers}
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for matcher in matchers:
        idle.put(workers[id(matcher)])

    def match_batch(batch: Batch) -> list[Outcome]:
        worker = idle.get()  # never waits: the queue has one entry per thread
        try:
            return worker.match([matchable[i] for i in batch])
        finally:
            idle.put(worker)

    batches = until_stopped(_schedule(matchable, uses, counts, limits))
    for outcomes in prefetch(match_batch, batches, threads=len(matchers), depth=2 * len(matchers)):
        yield from outcomes


def open_matchers(models: Path, settings: Settings) -> list[Matcher]:
    """Open a matcher for each worker thread. Raises ModelError as models.open_stages.

    On a CPU, all threads share one matcher; their number is settings.workers, else settings.threads, else the number of
    cores, or fewer if the memory is too small. Otherwise each GPU gets a matcher and
    capacity.GPU_THREADS threads, for up to settings.workers GPUs if that is not 0. CUDA_VISIBLE_DEVICES hides GPUs. A
    GPU that falls back to the CPU, or to another precision than the others, is left out with a warning.
    """
    device = matching_device(choose_device(settings.device))
    matchers = [Matcher(models, settings)]
    if device != "cpu" and not has_failed(device):
        count = min(len(gpus()), settings.workers or len(gpus()))
        matchers += [Matcher(models, settings, device_id=i) for i in range(1, count)]
    used = next((matcher for matcher in matchers if matcher.stages.device != "cpu"), None)
    if used is None:
        fitting = capacity.cpu_workers(matchers[0].stages, settings.max_keypoints)
        return matchers[:1] * (settings.workers or settings.threads or fitting)
    for device_id, matcher in enumerate(matchers):
        if _runs_in(matcher) != _runs_in(used):
            warn_gpu_left_out(device_id, _runs_in(matcher), _runs_in(used))
    return [matcher for matcher in matchers if _runs_in(matcher) == _runs_in(used)] * capacity.GPU_THREADS


def _runs_in(matcher: Matcher) -> str:
    return f"{matcher.stages.precision} on {matcher.stages.device}"


class _Limits(NamedTuple):
    images: int
    """Encoded images that a cache holds."""
    tokens: Mapping[int, int]
    """Keypoints of a batch, of both sides and including padding, by the id() of the matcher."""
    group: int
    """Keypoints of the pairs that a thread matches together, in one or more batches."""
    padding: float
    """Largest fraction of those that may be padding."""
    stems: int
    """Images that the threads of a matcher encode at once."""


def _limits(uses: Mapping[str, int], counts: Mapping[str, int], matchers: Sequence[Matcher]) -> _Limits:
    largest = max((counts[name] for name in uses), default=1)
    workers = len(matchers)
    images = max(2 * workers + 2, min(capacity.cached_images(matcher.stages, largest) for matcher in matchers))
    total = sum(counts[name] * used for name, used in uses.items())
    share = total // (2 * workers) + 1  # with few pairs, still some for every worker
    tokens = {id(matcher): min(share, capacity.batch_tokens(matcher.stages, largest)) for matcher in matchers}
    batch = max(tokens.values(), default=1)  # a worker with a lower limit splits the batches that it gets
    group = max(batch, min(share, *(capacity.group_tokens(matcher.stages, largest) for matcher in matchers)))
    padding = MAX_PADDING if group == batch else 1.0  # a matcher divides a group into batches of little padding
    return _Limits(images, tokens, group, padding, capacity.concurrent_stems(matchers[0].stages, largest))


def _schedule(pairs: PairList, uses: Mapping[str, int], counts: Mapping[str, int], limits: _Limits) -> Iterator[Batch]:
    names = sorted(uses)
    ids = pairs.ids
    if names != pairs.names:
        positions = {name: i for i, name in enumerate(names)}
        ids = pairs.lookup(np.array([positions.get(name, -1) for name in pairs.names], np.int32))
    return plan(
        [counts[name] for name in names], ids, images=limits.images, tokens=limits.group, padding=limits.padding
    )


class _Worker:
    """A matcher with its cache of encoded images.

    `uses` counts the pairs of each image over all matchers. With several matchers, each therefore caches some images
    for longer than it needs them.
    """

    def __init__(
        self, matcher: Matcher, read: Callable[[str], Features], limits: _Limits, uses: Mapping[str, int]
    ) -> None:
        self._matcher = _HalvingMatcher(matcher, limits.tokens[id(matcher)])
        encode = partial(_encode, matcher, read, Semaphore(limits.stems))
        self._images = EncodedImageCache(encode, limits.images, uses)

    def match(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """Match a batch of pairs."""
        outcomes: list[Outcome] = []
        names, encoded = [], []
        for pair in pairs:
            first, second = self._images.get(pair.a), self._images.get(pair.b)
            if isinstance(first, Failure):
                outcomes.append((pair, first))
            elif isinstance(second, Failure):
                outcomes.append((pair, second))
            else:
                names.append(pair)
                encoded.append((first, second))
        for pair, result in zip(names, self._matcher.match(encoded), strict=True):
            outcomes.append(
                (
                    pair,
                    Failure.from_exception("match", " ".join(pair), result)
                    if isinstance(result, Exception)
                    else result,
                )
            )
        return outcomes


def _encode(matcher: Matcher, read: Callable[[str], Features], stems: Semaphore, name: str) -> Points | Failure:
    """Read the features of an image and encode them, when the semaphore allows it."""
    try:
        features = read(name)
        with stems:
            return matcher.encode(features)
    except Exception as error:  # ItemError, or ONNX Runtime's if the descriptors do not fit the model
        stop_if_lost(matcher.stages.device, error, matcher.stages.shrink)
        return Failure.from_exception("match", name, error)


class _HalvingMatcher:
    """Halves a batch that fails, down to single pairs. Out of memory also halves the limit for later batches."""

    def __init__(self, matcher: Matcher, tokens: int) -> None:
        self._matcher, self._tokens = matcher, tokens

    def match(self, pairs: Sequence[tuple[Points, Points]]) -> list[Matches | Exception]:
        """Return the matches of each pair, or the error that it raised when it was matched alone."""
        tokens = self._tokens
        try:
            return list(self._matcher.match(pairs, tokens))
        except Exception as error:  # ONNX Runtime has one class per status code
            if len(pairs) == 1:
                stop_if_lost(self._matcher.stages.device, error, self._matcher.stages.shrink)
                return [error]
            if any(word in str(error).lower() for word in ("memory", "alloc")):
                self._tokens = min(self._tokens, max(1, tokens // 2))
                with suppress(Exception):  # a device in an error state fails the next run too, which reports it
                    self._matcher.stages.shrink()
            half = len(pairs) // 2
            return self.match(pairs[:half]) + self.match(pairs[half:])
