"""The contents of a workspace, read independently of lgbatch: plain h5py, and sqlite3 in a process of its own."""

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

Item = dict[str, NDArray[np.generic]]
"""Datasets by name."""
Items = dict[str, Item]
"""Items by path, 'image' or 'image/image'. Attributes are not compared: they hold times and provenance."""

_READ_ROWS = """
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
    """The contents of a workspace. A missing file has no items and no rows."""

    features: Items = field(default_factory=dict)
    matches: Items = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    """Rows of the database by table."""
    problems: tuple[str, ...] = ()
    """One line per unreadable file."""

    @property
    def items(self) -> Items:
        """Items of both stores, as 'features: NAME' and 'matches: NAME'."""
        both = {"features": self.features, "matches": self.matches}
        return {f"{store}: {name}": item for store, items in both.items() for name, item in items.items()}


def read(folder: Path) -> Workspace:
    """Read everything in a workspace; errors become its `problems`."""
    stores, problems = [], []
    for name in "features.h5", "matches.h5":
        try:
            stores.append(read_store(folder / name))
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            stores.append({})
            problems.append(f"{name}: {error}")
    integrity, rows = read_database(folder / "database.db")
    if integrity != "ok":
        problems.append(f"database.db: {integrity}")
    return Workspace(*stores, rows, tuple(problems))


def read_store(path: Path) -> Items:
    """Read all datasets of a store; {} if it does not exist. Raises h5py's exceptions on a damaged file."""
    items: Items = {}
    if not path.exists():
        return items

    def visit(name: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            item, _, dataset = name.rpartition("/")
            items.setdefault(item, {})[dataset] = node[()]

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
    return items


def read_database(path: Path) -> tuple[str, dict[str, list[str]]]:
    """The result of PRAGMA integrity_check, "ok" if all is well, and the rows by table.

    Reads a copy of the database and its write-ahead log, because reading the original would checkpoint the log. Uses a
    process of its own: sqlite3 and pycolmap do not see each other's locks.
    """
    if not path.exists():
        return "ok", {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copyfile(path, Path(scratch) / path.name)
        for suffix in "-wal", "-journal":
            log = path.with_name(path.name + suffix)
            if log.exists():
                shutil.copyfile(log, copy.with_name(log.name))
        command = [sys.executable, "-I", "-S", "-c", _READ_ROWS, str(copy)]
        done = subprocess.run(command, capture_output=True, text=True)
    integrity, rows = done.stdout.splitlines() or ['"no answer"', "{}"]
    return json.loads(integrity), json.loads(rows)


def equal(item: Item, expected: Item) -> bool:
    """Whether two items have the same datasets, dtypes and values."""
    return item.keys() == expected.keys() and all(
        item[name].dtype == array.dtype and np.array_equal(item[name], array) for name, array in expected.items()
    )


def differences(workspace: Workspace, expected: Workspace) -> list[str]:
    """One line per difference between a finished workspace and that of an uninterrupted run."""
    lines = list(workspace.problems)
    for name in sorted(workspace.items.keys() | expected.items.keys()):
        if name not in workspace.items or name not in expected.items:
            lines.append(f"{name} is in one only")
        elif not equal(workspace.items[name], expected.items[name]):
            lines.append(f"{name} differs")
    for table in sorted(workspace.rows.keys() | expected.rows.keys()):
        if workspace.rows.get(table) != expected.rows.get(table):
            lines.append(f"table {table} differs")
    return lines
