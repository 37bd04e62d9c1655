"""Candidates in a file, for a run that goes on after it was stopped: those of many photos take minutes."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Candidates
from lgbatch.storage.durable import replace_synced


def stored_candidates(path: Path, names: Sequence[str], key: str, find: Callable[[], Candidates]) -> Candidates:
    """Return the candidates that the file (NumPy's .npz) has under this key, or find them and write the file.

    `key` identifies what they depend on. Raises InputError if the file cannot be written.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            if str(stored["key"]) == key:
                return Candidates(names, *(stored[field] for field in ("pairs", "rank", "score", "sources")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # there is no such file, or it is damaged: it is only a copy
    found, content = find(), io.BytesIO()
    np.savez(content, key=key, pairs=found.pairs, rank=found.rank, score=found.score, sources=found.sources)
    try:
        replace_synced(path, content.getvalue())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    return found
