"""How bad files are made in a folder of good ones: photos/ (three of them), out/ (a finished workspace), models/."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

Maker = Callable[[Path], Any]
RANDOM = np.random.default_rng(1).bytes(20_000)
FIRST, SECOND = "a.png", "day 1/b.bmp"
RUN = ("run", "photos", "-o", "out")
EXTRACT = ("extract", "photos", "-w", "out")
PAIRS = ("pairs", "-w", "out")
MATCH = ("match", "-w", "out")
RECONSTRUCT = ("reconstruct", "-w", "out")


class Case(NamedTuple):
    make: Maker
    command: tuple[str, ...]
    status: int | tuple[int, ...]
    """Or several, where each would be right."""
    word: str
    """What the message must hold."""


def file(name: str, data: bytes) -> Maker:
    def make(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return make


def cut(name: str, share: float) -> Maker:
    return lambda at: os.truncate(at / name, int((at / name).stat().st_size * share))


def folder(name: str) -> Maker:
    def make(at: Path) -> None:
        (at / name).unlink(missing_ok=True)
        (at / name).mkdir(parents=True)
        (at / name / "x").write_text("x")

    return make


def gone(*names: str) -> Maker:
    def make(at: Path) -> None:
        for name in names:
            shutil.rmtree(at / name) if (at / name).is_dir() else (at / name).unlink()

    return make


def after(*makers: Maker) -> Maker:
    def make(at: Path) -> None:
        for maker in makers:
            maker(at)

    return make


def store(name: str, change: Callable[[h5py.File], Any], *, fresh: bool = True) -> Maker:
    """Change what is in a store; `fresh`: what was made from it is gone, so that it is read again."""

    def make(at: Path) -> None:
        with h5py.File(at / "out" / name, "r+") as opened:
            change(opened)
        for later in ("matches.h5", "database.db") if fresh and name == "features.h5" else ("database.db",):
            (at / "out" / later).unlink()

    return make


def dataset(group: str, name: str, data: Any, **options: Any) -> Callable[[h5py.File], None]:
    def change(opened: h5py.File) -> None:
        del opened[group][name]
        opened[group].create_dataset(name, data=data, **options)

    return change


def replaced(group: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def make(opened: h5py.File) -> None:
        data = change(opened[group][()])
        del opened[group]
        opened[group] = data

    return make


def at(row: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(data: np.ndarray) -> np.ndarray:
        data[row] = value
        return data

    return change


def linked(group: str, link: Any) -> Callable[[h5py.File], None]:
    def change(opened: h5py.File) -> None:
        if group in opened:
            del opened[group]
        opened[group] = link

    return change


def sql(*statements: str) -> Maker:
    def make(folder: Path) -> None:
        code = f"import sqlite3\nwith sqlite3.connect({str(folder / 'out/database.db')!r}) as c:\n"
        code += "".join(f"    c.execute({statement!r})\n" for statement in statements)
        subprocess.run([sys.executable, "-I", "-c", code], check=True)

    return make
