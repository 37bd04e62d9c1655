"""pairs.jsonl: the pairs that were tried in rounds, why, and with what result. One JSON object a line."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lgbatch.errors import InputError
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.storage.durable import replace_synced


@dataclass(frozen=True)
class TriedPair:
    """A pair that was tried."""

    a: str
    b: str
    round: int
    """From 1."""
    why: str
    """"candidate": of the best candidates of an image. "neighbours": the images share verified neighbours. "join": to
    join groups of images."""
    hints: str
    """What proposed a candidate: looks, near, order, joined with +."""
    votes: int
    """Descriptors of a candidate that are mutual nearest neighbours."""
    matches: int
    inliers: int
    """0 if the pair is not verified."""


def write_tried_pairs(path: Path, pairs: Sequence[TriedPair]) -> None:
    """Write the file atomically and durably. Raises InputError if it cannot be written."""
    lines = (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    try:
        replace_synced(path, "".join(lines).encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def lists_tried_pairs(pairs_file: Path, tried: Path) -> bool:
    """Whether a pairs file lists the pairs of pairs.jsonl, or lacks its last round after a kill: nobody edited it."""
    try:
        entries = [*map(json.loads, tried.read_text(encoding="utf-8").splitlines())]
        rounds = [entry["round"] for entry in entries]
        recorded = [(entry["a"], entry["b"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    before_last = [pair for pair, number in zip(recorded, rounds, strict=True) if number != rounds[-1]]
    return [*read_pairs(pairs_file).pairs] in (recorded, before_last)
