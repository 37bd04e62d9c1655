"""Building blocks of corrupt files.

A damage function receives a folder with photos/ (three photos), out/ (a finished workspace) and models/, and damages
one of them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

Damage = Callable[[Path], Any]
StoreEdit = Callable[[h5py.File], Any]
RANDOM = np.random.default_rng(1).bytes(20_000)
FIRST = "a.png"
RUN = ("run", "photos", "-o", "out")
EXTRACT = ("extract", "photos", "-w", "out")
PAIRS = ("pairs", "-w", "out")
MATCH = ("match", "-w", "out")
RECONSTRUCT = ("reconstruct", "-w", "out")


class Case(NamedTuple):
    """A damage, the command that meets it, and how the command has to end."""

    damage: Damage
    command: tuple[str, ...]
    status: int | tuple[int, ...]
    """Exit status, or all acceptable ones."""
    message: str
    """Part of the output."""


def nothing(folder: Path) -> None:
    """The command itself is the bad input."""


def write_file(name: str, data: bytes) -> Damage:
    """Put a file of these bytes in place of a file or folder."""

    def damage(root: Path) -> None:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return damage


def copy_file(source: str, target: str) -> Damage:
    """Overwrite a file with a copy of another one."""
    return lambda root: shutil.copy(root / source, root / target)


def truncate(name: str, fraction: float) -> Damage:
    """Keep the first `fraction` of a file."""
    return lambda root: os.truncate(root / name, int((root / name).stat().st_size * fraction))


def make_folder(name: str) -> Damage:
    """Put a folder that is not empty in place of a file."""

    def damage(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir(parents=True)
        (root / name / "x").write_text("x")

    return damage


def remove(*names: str) -> Damage:
    """Remove files and folders."""

    def damage(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()

    return damage


def chain(*damages: Damage) -> Damage:
    """Apply several damages in order."""

    def damage(root: Path) -> None:
        for one in damages:
            one(root)

    return damage


def edit_store(name: str, edit: StoreEdit) -> Damage:
    """Edit a store of the workspace, and remove the files computed from it so that lgbatch reads it again."""

    def damage(root: Path) -> None:
        with h5py.File(root / "out" / name, "r+") as opened:
            edit(opened)
        for later in ("matches.h5", "database.db") if name == "features.h5" else ("database.db",):
            (root / "out" / later).unlink()

    return damage


def delete(name: str) -> StoreEdit:
    """Delete a dataset or group."""
    return lambda opened: opened.__delitem__(name)


def set_attribute(name: str, value: Any) -> StoreEdit:
    """Set an attribute of the file."""
    return lambda opened: opened.attrs.__setitem__(name, value)


def replace_dataset(name: str, data: Any, **options: Any) -> StoreEdit:
    """Put a new dataset in place of an old one."""

    def edit(opened: h5py.File) -> None:
        del opened[name]
        opened.create_dataset(name, data=data, **options)

    return edit


def map_dataset(name: str, change: Callable[[np.ndarray], np.ndarray]) -> StoreEdit:
    """Replace a dataset by a function of its values."""

    def edit(opened: h5py.File) -> None:
        data = change(opened[name][()])
        del opened[name]
        opened[name] = data

    return edit


def set_rows(rows: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The change of map_dataset that assigns `value` to some rows."""

    def change(data: np.ndarray) -> np.ndarray:
        data[rows] = value
        return data

    return change


def set_link(name: str, link: Any) -> StoreEdit:
    """Put an HDF5 link in place of a group, or add it."""

    def edit(opened: h5py.File) -> None:
        if name in opened:
            del opened[name]
        opened[name] = link

    return edit


def edit_database(*statements: str) -> Damage:
    """Execute SQL on the database of the workspace."""

    def damage(root: Path) -> None:
        code = f"import sqlite3\nwith sqlite3.connect({str(root / 'out/database.db')!r}) as c:\n"
        code += "".join(f"    c.execute({statement!r})\n" for statement in statements)
        subprocess.run([sys.executable, "-I", "-c", code], check=True)

    return damage
