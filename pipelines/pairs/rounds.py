"""Pairs that are chosen in rounds: matched and verified as they are chosen.

pairing/rounds.py says which pairs come next. LightGlue matches those of a round, and COLMAP verifies them in threads
beside it. The two-view geometries are stored with the matches, and the import hands them to the database: nothing is
verified twice. A run that was killed repeats the decisions of the rounds from what is stored.
"""

from collections.abc import Sequence
from pathlib import Path

from lgbatch.colmap.sensors.initial import initial_cameras
from lgbatch.config import Settings
from lgbatch.matching.match import open_pair_matcher
from lgbatch.pairing.evidence.lists import Candidates, Source
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pairing.rounds import Proposal, Rounds
from lgbatch.pairing.tried_pairs import TriedPair, write_tried_pairs
from lgbatch.pipelines.pairs.verifier import PairResult, Verifier
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.forecast import Forecast
from lgbatch.workspace.stage import Failures

PAIRS_PER_IMAGE = 20
"""Pairs that rounds try, for each image: 10 to 20 on the sets of docs/pairs.md."""
_FASTER = "fewer keypoints (--max-keypoints 1024) or a GPU are faster"


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
    choice = RoundsOfPairs(candidates)
    forecast = Forecast(expected_pairs(candidates), _FASTER)
    with open_pair_matcher(workspace.features, workspace.matches, settings, failures, models) as matcher:
        cameras = initial_cameras(image_folder, candidates.names, matcher.features, settings)
        with Verifier(matcher, cameras, failures, settings.threads or available_cores()) as verifier:
            while pairs := choice.propose():
                step = f"match, round {choice.round}"
                matcher.match(pairs, on_match=verifier.submit, step=step, forecast=forecast)
                choice.report(verifier.finish(pairs))
                if choice.round == 1:  # longer, of an earlier run: if this one is killed here, it would count as edited
                    workspace.pairs.unlink(missing_ok=True)
                choice.write(workspace)
    return choice.tried


def expected_pairs(candidates: Candidates) -> int:
    """About how many pairs the rounds will try."""
    return min(len(candidates.pairs), PAIRS_PER_IMAGE * len(candidates.names))


class RoundsOfPairs:
    """The rounds of the images of candidates, by name, and the pairs that they have tried.

    Call `propose` and `report` in turn until there are no pairs.
    """

    def __init__(self, candidates: Candidates) -> None:
        """Begin with the first round."""
        self.tried: list[TriedPair] = []
        """The pairs that are reported, in order."""
        self._candidates = candidates
        self._rows = {(a, b): row for row, (a, b) in enumerate(candidates.pairs.tolist())}
        self._rounds = Rounds(len(candidates.names), candidates.pairs, candidates.rank)
        self._proposals: list[Proposal] = []

    @property
    def round(self) -> int:
        """Number of the round proposed last, from 1."""
        return self._rounds.round

    def propose(self) -> list[Pair]:
        """The pairs of the next round; none at the end."""
        names, self._proposals = self._candidates.names, self._rounds.propose()
        return [Pair(names[a], names[b]) for a, b, _ in self._proposals]

    def report(self, results: Sequence[PairResult]) -> None:
        """Tell the results of the pairs proposed last, in their order."""
        self._rounds.report([result.inliers for result in results])
        self.tried += map(self._describe, self._proposals, results)

    def write(self, workspace: Workspace) -> None:
        """Write the pairs that are reported to pairs.jsonl and pairs.txt. Raises InputError as write_pairs."""
        write_tried_pairs(workspace.tried_pairs, self.tried)
        write_pairs(workspace.pairs, [Pair(pair.a, pair.b) for pair in self.tried])

    def _describe(self, proposal: Proposal, result: PairResult) -> TriedPair:
        a, b, why = proposal
        names, row = self._candidates.names, self._rows.get((a, b))
        sources = Source(0 if row is None else int(self._candidates.sources[row]))
        return TriedPair(
            names[a],
            names[b],
            round=self.round,
            why=why,
            hints="+".join(source.name.lower() for source in sources if source.name),
            votes=0 if row is None else int(self._candidates.score[row]),
            matches=result.matches,
            inliers=result.inliers,
        )
