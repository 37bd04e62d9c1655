"""What is in a workspace, read from outside: plain h5py, and sqlite3 in a process of its own."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Items = dict[str, dict[str, NDArray[np.generic]]]
"""Datasets by item ('image' or 'image/image') and name. Attributes are not compared: they tell when and how."""

_ROWS = """
import json, sqlite3, sys
try:
    database = sqlite3.connect(sys.argv[1])
    print(json.dumps(database.execute("PRAGMA integrity_check").fetchone()[0]))
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    print(json.dumps({name: sorted(map(repr, database.execute(f'SELECT * FROM "{name}"'))) for name in sorted(tables)}))
except sqlite3.Error as error:
    print(json.dumps(str(error)))
    print("{}")
"""


@dataclass(frozen=True)
class Workspace:
    """The contents of a workspace, or of what is there of it."""

    features: Items = field(default_factory=dict)
    matches: Items = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    """Rows of the database by table."""
    problems: tuple[str, ...] = ()
    """What cannot be read."""

    @property
    def items(self) -> Items:
        """Of both stores."""
        both = {"features": self.features, "matches": self.matches}
        return {f"{store}: {name}": item for store, items in both.items() for name, item in items.items()}


def read(folder: Path) -> Workspace:
    """Everything in a workspace. A file that is not there is empty."""
    stores, problems = [], []
    for name in "features.h5", "matches.h5":
        try:
            stores.append(read_store(folder / name))
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            stores.append({})
            problems.append(f"{name}: {error}")
    verdict, rows = read_database(folder / "database.db")
    if verdict != "ok":
        problems.append(f"database.db: {verdict}")
    return Workspace(*stores, rows, tuple(problems))


def read_store(path: Path) -> Items:
    """All datasets. Raises what h5py raises on a damaged file."""
    found: Items = {}
    if not path.exists():
        return found

    def visit(name: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            item, _, what = name.rpartition("/")
            found.setdefault(item, {})[what] = node[()]

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
    return found


def read_database(path: Path) -> tuple[str, dict[str, list[str]]]:
    """What PRAGMA integrity_check says, and all rows. Of a copy with its log: reading would fold the log in.

    In a process of its own: sqlite3 and pycolmap do not see each other's locks.
    """
    if not path.exists():
        return "ok", {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copyfile(path, Path(scratch) / path.name)
        for end in "-wal", "-journal":
            log = path.with_name(path.name + end)
            if log.exists():
                shutil.copyfile(log, copy.with_name(log.name))
        command = [sys.executable, "-I", "-S", "-c", _ROWS, str(copy)]
        done = subprocess.run(command, capture_output=True, text=True)
    verdict, rows = done.stdout.splitlines() or ['"no answer"', "{}"]
    return json.loads(verdict), json.loads(rows)


def equal(found: dict[str, NDArray[np.generic]], expected: dict[str, NDArray[np.generic]]) -> bool:
    """Whether an item is what it should be: the same datasets, types and values."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array) for name, array in expected.items()
    )


def differences(found: Workspace, expected: Workspace) -> list[str]:
    """How a finished workspace differs from the one of an uninterrupted run; [] when it does not."""
    told = list(found.problems)
    for name in sorted(found.items.keys() | expected.items.keys()):
        if name not in found.items or name not in expected.items:
            told.append(f"{name} is in one only")
        elif not equal(found.items[name], expected.items[name]):
            told.append(f"{name} differs")
    for table in sorted(found.rows.keys() | expected.rows.keys()):
        if found.rows.get(table) != expected.rows.get(table):
            told.append(f"table {table} differs")
    return told
