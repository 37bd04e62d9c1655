"""Candidates are found once, and again if what they depend on changes or their file is damaged."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Candidates, Ranked, Source, union
from lgbatch.pairing.evidence.stored import stored_candidates

NAMES = ("a", "b", "c")


def test_candidates_are_found_once(tmp_path: Path) -> None:
    calls, path = [], tmp_path / "candidates.npz"

    def find() -> Candidates:
        calls.append(1)
        return union(NAMES, [Ranked.from_table(Source.LOOKS, np.arange(3), np.array([[1], [2], [0]]))])

    first = stored_candidates(path, NAMES, "key", find)
    again = stored_candidates(path, NAMES, "key", find)
    assert len(calls) == 1
    for field in ("pairs", "rank", "score", "sources"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
        assert getattr(first, field).dtype == getattr(again, field).dtype
    stored_candidates(path, NAMES, "other", find)
    assert len(calls) == 2
    for calls_so_far, size in enumerate((50, 0), 3):
        path.write_bytes(path.read_bytes()[:size])
        stored_candidates(path, NAMES, "other", find)
        assert len(calls) == calls_so_far
    with pytest.raises(InputError, match="cannot write"):
        stored_candidates(tmp_path / "missing" / "candidates.npz", NAMES, "key", find)
