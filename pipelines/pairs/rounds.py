"""Pairs that are chosen in rounds: matched and verified as they are chosen.

pairing/rounds.py says which pairs come next. LightGlue matches those of a round, and COLMAP verifies them in threads
beside it. The two-view geometries are stored with the matches, and the import hands them to the database: nothing is
verified twice. A run that was killed repeats the decisions of the rounds from what is stored.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from lgbatch.colmap.sensors.initial import initial_cameras
from lgbatch.colmap.stored import StoredFeatures
from lgbatch.colmap.two_view import camera_digest, pack_geometry, unpack_geometry, verify
from lgbatch.config import Settings
from lgbatch.matching.match import PairMatcher, open_pair_matcher
from lgbatch.pairing.evidence.lists import Candidates, Source
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pairing.rounds import Proposal, Rounds
from lgbatch.pairing.tried_pairs import TriedPair, write_tried_pairs
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Failure, FloatArray, IntArray, Matches, Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.forecast import Forecast
from lgbatch.workspace.stage import Failures

if TYPE_CHECKING:
    import pycolmap

PAIRS_PER_IMAGE = 20
"""Pairs that rounds try, for each image: 10 to 20 on the sets of docs/pairs.md."""
_FASTER = "fewer keypoints (--max-keypoints 1024) or a GPU are faster"
_CACHED_IMAGES = 4096
"""Images whose keypoints are in memory: 32 kB each with 2048."""


def choose_in_rounds(
    workspace: Workspace,
    image_folder: Path,
    candidates: Candidates,
    settings: Settings,
    *,
    models: Path,
    failures: Failures,
) -> list[TriedPair]:
    """Match and verify candidates in rounds, and write pairs.txt and pairs.jsonl after each. Returns the pairs.

    Raises as `match` and import_stores do.
    """
    names = candidates.names
    hints = _Hints(candidates)
    rounds = Rounds(len(names), candidates.pairs, candidates.rank)
    forecast = Forecast(min(len(candidates.pairs), PAIRS_PER_IMAGE * len(names)), _FASTER)
    tried: list[TriedPair] = []
    with open_pair_matcher(workspace.features, workspace.matches, settings, failures, models) as matcher:
        cameras = initial_cameras(image_folder, names, matcher.features, settings)
        with _Verifier(matcher, cameras, failures, settings.threads or available_cores()) as verifier:
            while proposals := rounds.propose():
                pairs = [Pair(names[a], names[b]) for a, b, _ in proposals]
                step = f"match, round {rounds.round}"
                matcher.match(pairs, on_match=verifier.submit, step=step, forecast=forecast)
                results = verifier.finish(pairs)
                rounds.report([result.inliers for result in results])
                tried += map(hints.describe, [rounds.round] * len(pairs), proposals, results)
                if rounds.round == 1:  # longer, of an earlier run: if this one is killed here, it would count as edited
                    workspace.pairs.unlink(missing_ok=True)
                write_tried_pairs(workspace.tried_pairs, tried)
                write_pairs(workspace.pairs, [Pair(pair.a, pair.b) for pair in tried])
    return tried


class _Result(NamedTuple):
    """What came of a pair."""

    matches: int
    inliers: int
    """0 if the pair is not verified."""


class _Hints:
    """What proposed each candidate."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._rows = {(a, b): row for row, (a, b) in enumerate(candidates.pairs.tolist())}

    def describe(self, number: int, proposal: Proposal, result: _Result) -> TriedPair:
        """The record of a pair of a round."""
        a, b, why = proposal
        names, row = self._candidates.names, self._rows.get((a, b))
        sources = Source(0 if row is None else int(self._candidates.sources[row]))
        return TriedPair(
            names[a],
            names[b],
            round=number,
            why=why,
            hints="+".join(source.name.lower() for source in sources if source.name),
            votes=0 if row is None else int(self._candidates.score[row]),
            matches=result.matches,
            inliers=result.inliers,
        )


class _Verifier:
    """Verifies pairs in threads, and stores their geometries. Only the calling thread reads and writes the matches."""

    def __init__(
        self, matcher: PairMatcher, cameras: Mapping[str, "pycolmap.Camera"], failures: Failures, threads: int
    ) -> None:
        self._matcher, self._cameras, self._failures = matcher, cameras, failures
        self._digests = {name: camera_digest(camera) for name, camera in cameras.items()}
        self._source = StoredFeatures(matcher.features, list(cameras))
        self._keypoints = lru_cache(_CACHED_IMAGES)(self._read_keypoints)
        self._pool, self._ahead = ThreadPoolExecutor(threads), 16 * threads
        self._running: deque[tuple[Pair, int, Future[tuple[bytes, int]]]] = deque()
        self._results: dict[Pair, _Result] = {}

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
            self._results[pair] = _Result(0, 0)
            return
        self._running.append((pair, len(matches.indices), self._pool.submit(self._verify, pair, matches.indices)))
        while self._running and (len(self._running) > self._ahead or self._running[0][2].done()):
            self._store_next()

    def finish(self, pairs: Sequence[Pair]) -> list[_Result]:
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

    def _result(self, pair: Pair) -> _Result:
        """The result of a pair, which may be stored in the other order. A pair that failed has none."""
        return self._results.get(pair) or self._results.get(Pair(pair.b, pair.a)) or _Result(0, 0)

    def _recall(self, pair: Pair) -> None:
        """Take the stored geometry of a pair, or verify it."""
        store = self._matcher.store
        stored = store.stored_order(pair)
        matches, packed = store.read(stored), store.geometry(stored)
        geometry = unpack_geometry(packed, matches.indices, self._pair_digests(stored)) if packed else None
        if geometry is None:
            self.submit(stored, matches)
        else:
            self._results[stored] = _Result(len(matches.indices), len(geometry.inlier_matches))

    def _store_next(self) -> None:
        pair, matches, running = self._running.popleft()
        try:
            packed, inliers = running.result()
        except Exception as error:  # for instance ItemError, if the features are damaged
            self._failures.add(Failure.from_exception("match", " ".join(pair), error))
            return
        self._matcher.store.set_geometry(pair, packed)
        self._results[pair] = _Result(matches, inliers)

    def _verify(self, pair: Pair, matches: IntArray) -> tuple[bytes, int]:
        cameras = [self._cameras[name] for name in pair]
        geometry = verify(cameras, [self._keypoints(name) for name in pair], matches)
        return pack_geometry(geometry, matches, self._pair_digests(pair)), len(geometry.inlier_matches)

    def _pair_digests(self, pair: Pair) -> tuple[bytes, bytes]:
        return self._digests[pair.a], self._digests[pair.b]

    def _read_keypoints(self, name: str) -> FloatArray:
        return self._source.keypoints(name) + np.float32(0.5)
