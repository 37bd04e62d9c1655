"""PairList is a sequence of pairs like any other; no step from pairs.txt to the schedule takes many bytes a pair."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgbatch.types import Pair, PairList

PAIRS = [Pair("b", "a"), Pair("c", "a"), Pair("c", "d"), Pair("b", "d")]
BYTES_PER_PAIR = 120
"""Most bytes a pair that the process grows by. A list of Pair objects and the text of the file took 270."""
names = st.sampled_from("abcde")


def test_indices_slices_and_comparisons_are_those_of_a_list() -> None:
    pairs = PairList.of(PAIRS)
    assert (len(pairs), list(pairs), pairs[1], pairs[-1]) == (4, PAIRS, PAIRS[1], PAIRS[-1])
    assert pairs == PAIRS and list(PAIRS) == pairs and pairs == PairList.of(PAIRS[::-1])[::-1]
    assert pairs[1:3] == PAIRS[1:3] and PAIRS[2] in pairs and Pair("a", "b") not in pairs
    assert pairs != PAIRS[:3] and pairs != [*PAIRS[:3], Pair("d", "b")] and pairs != 4
    assert PairList.of(pairs) is pairs and PairList.of([]) == [] and not PairList.of([])
    assert repr(pairs[:1]) == "<1 pair: Pair(a='b', b='a')>"
    with pytest.raises(IndexError):
        pairs[4]


def test_selections_share_the_names_but_tell_which_are_used() -> None:
    pairs = PairList.of(PAIRS)
    chosen = pairs.where(np.array([True, False, False, True]))
    assert chosen == [PAIRS[0], PAIRS[3]] and chosen.names is pairs.names
    assert chosen.images() == ["b", "a", "d"]
    assert dict(zip(chosen.names, chosen.uses().tolist(), strict=True)) == {"b": 2, "a": 1, "c": 0, "d": 1}
    assert pairs.between({"a", "b", "c"}).tolist() == [True, True, False, False]
    assert pairs.where(np.ones(4, bool)) is pairs


@given(st.lists(st.builds(Pair, names, names), max_size=30))
def test_repeats_are_found_in_either_order(pairs: list[Pair]) -> None:
    first_rows: dict[frozenset[str], int] = {}
    expected = {}
    for row, pair in enumerate(pairs):
        if first_rows.setdefault(frozenset(pair), row) != row:
            expected[row] = first_rows[frozenset(pair)]
    rows, firsts = PairList.of(pairs).repeats()
    assert dict(zip(rows.tolist(), firsts.tolist(), strict=True)) == expected


SCRIPT = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from lgbatch.matching import capacity
from lgbatch.matching.engine import match_pairs
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.runtime.environment import peak_memory_mb
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import ImageRecord
from lgbatch.types import PairList
from lgbatch.workspace.staleness import plan_matching
path, order, images = Path(sys.argv[1]), sys.argv[2], [f"folder/IMG {i:04d}.jpg" for i in range(775)]
before = peak_memory_mb()
pairs = exhaustive(images)
if order == "shuffled":
    pairs = PairList(images, np.random.default_rng(0).permutation(pairs.ids))
write_pairs(path, pairs)
write_pairs(path, pairs)
listed = read_image_pairs(path, images, None).pairs
assert listed == pairs
with MatchStore(path.with_name("matches.h5"), append={}) as store:
    plan = plan_matching(store, listed, {name: ImageRecord(1, 1, 64, None) for name in images}, "refuse")
capacity.cached_images = lambda *_: 100
capacity.batch_tokens = capacity.group_tokens = capacity.concurrent_stems = lambda *_: 128
matcher = SimpleNamespace(encode=lambda _: None, match=lambda pairs, _: [None] * len(pairs), stages=None)
outcomes = match_pairs(plan.missing, dict.fromkeys(images, 64), lambda name: name, [matcher])
next(outcomes)
outcomes.close()
print((peak_memory_mb() - before) * 2**20 / len(pairs))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report the peak memory")
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_no_step_from_the_choice_to_the_schedule_takes_many_bytes_a_pair(order: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, tmp_path / "pairs.txt", order]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(output) < BYTES_PER_PAIR
