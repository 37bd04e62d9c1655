"""Verification of pairs beside their matching: COLMAP's two-view geometries, stored with the matches.

The import hands them to the database: nothing is verified twice.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from lgbatch.colmap.stored import StoredFeatures
from lgbatch.colmap.two_view import camera_digest, pack_geometry, unpack_geometry, verify
from lgbatch.matching.match import PairMatcher
from lgbatch.types import Failure, FloatArray, IntArray, Matches, Pair
from lgbatch.workspace.stage import Failures

if TYPE_CHECKING:
    import pycolmap

_CACHED_IMAGES = 4096
"""Images whose keypoints are in memory: 32 kB each with 2048."""


class PairResult(NamedTuple):
    """What came of a pair."""

    matches: int
    inliers: int
    """0 if the pair is not verified."""


class Verifier:
    """Verifies pairs in threads, and stores their geometries. Only the calling thread reads and writes the matches."""

    def __init__(
        self, matcher: PairMatcher, cameras: Mapping[str, "pycolmap.Camera"], failures: Failures, threads: int
    ) -> None:
        """`cameras` are those of the matcher's images, by name, as the import makes them."""
        self._matcher, self._cameras, self._failures = matcher, cameras, failures
        self._digests = {name: camera_digest(camera) for name, camera in cameras.items()}
        self._source = StoredFeatures(matcher.features, list(cameras))
        self._keypoints = lru_cache(_CACHED_IMAGES)(self._read_keypoints)
        self._pool, self._ahead = ThreadPoolExecutor(threads), 16 * threads
        self._running: deque[tuple[Pair, int, Future[tuple[bytes, int]]]] = deque()
        self._results: dict[Pair, PairResult] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the pairs that are not verified yet."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, pair: Pair, matches: Matches) -> None:
        """Verify a pair that has just been matched."""
        if not len(matches.indices):
            self._results[pair] = PairResult(0, 0)
            return
        self._running.append((pair, len(matches.indices), self._pool.submit(self._verify, pair, matches.indices)))
        while self._running and (len(self._running) > self._ahead or self._running[0][2].done()):
            self._store_next()

    def finish(self, pairs: Sequence[Pair]) -> list[PairResult]:
        """Return the results of pairs, in their order. Those matched by an earlier run are verified if need be."""
        store = self._matcher.store
        submitted = {pair for pair, *_ in self._running} | self._results.keys()
        for pair in pairs:
            if pair not in submitted and store.record(pair):
                self._recall(pair)
        while self._running:
            self._store_next()
        store.commit()
        results = [self._result(pair) for pair in pairs]
        self._results.clear()
        return results

    def _result(self, pair: Pair) -> PairResult:
        """The result of a pair, which may be stored in the other order. A pair that failed has none."""
        return self._results.get(pair) or self._results.get(Pair(pair.b, pair.a)) or PairResult(0, 0)

    def _recall(self, pair: Pair) -> None:
        """Take the stored geometry of a pair, or verify it."""
        store = self._matcher.store
        stored = store.stored_order(pair)
        matches, packed = store.read(stored), store.geometry(stored)
        cameras = [self._cameras[name] for name in stored]
        found = unpack_geometry(packed, matches.indices, self._pair_digests(stored), cameras) if packed else None
        if found is None:
            self.submit(stored, matches)
        else:
            self._results[stored] = PairResult(len(matches.indices), len(found.geometry.inlier_matches))

    def _store_next(self) -> None:
        pair, matches, running = self._running.popleft()
        try:
            packed, inliers = running.result()
        except Exception as error:  # for instance ItemError, if the features are damaged
            self._failures.add(Failure.from_exception("match", " ".join(pair), error))
            return
        self._matcher.store.set_geometry(pair, packed)
        self._results[pair] = PairResult(matches, inliers)

    def _verify(self, pair: Pair, matches: IntArray) -> tuple[bytes, int]:
        """Verify a pair in the order of its names: that of a new database, whose verification has this result."""
        swapped = pair.a > pair.b
        if swapped:
            pair, matches = Pair(pair.b, pair.a), matches[:, ::-1]
        cameras = [self._cameras[name] for name in pair]
        geometry = verify(cameras, [self._keypoints(name) for name in pair], matches)
        packed = pack_geometry(geometry, matches, self._pair_digests(pair), swapped=swapped)
        return packed, len(geometry.inlier_matches)

    def _pair_digests(self, pair: Pair) -> tuple[bytes, bytes]:
        return self._digests[pair.a], self._digests[pair.b]

    def _read_keypoints(self, name: str) -> FloatArray:
        return self._source.keypoints(name) + np.float32(0.5)
