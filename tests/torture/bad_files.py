"""Bad files and folders: how each is made in a folder of good ones, which command meets it, and how it is to end.

In the folder: photos/ (three of them), out/ (a finished workspace of theirs), models/.
"""

import json
import os
import shutil
import sqlite3
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
    status: int
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


def other_database(folder: Path) -> None:
    gone("out/database.db")(folder)
    sql("CREATE TABLE places (url TEXT)", "INSERT INTO places VALUES ('x')")(folder)


KEYPOINTS, DESCRIPTORS, SCORES, SIZE = (
    f"{FIRST}/{name}" for name in ("keypoints", "descriptors", "scores", "image_size")
)
PAIR = "a.png/day 1-b.bmp"
MATCHES0, MATCHING = f"{PAIR}/matches0", f"{PAIR}/matching_scores0"
FEATURES = {
    "zero length": Case(file("out/features.h5", b""), MATCH, 2, "features.h5"),
    "random": Case(file("out/features.h5", RANDOM), MATCH, 2, "features.h5"),
    "half": Case(cut("out/features.h5", 0.5), RUN, 2, "features.h5"),
    "all but the end": Case(cut("out/features.h5", 0.999), MATCH, 2, "features.h5"),
    "a folder": Case(folder("out/features.h5"), RUN, 2, "features.h5"),
    "a folder, read": Case(folder("out/features.h5"), PAIRS, 2, "features.h5"),
    "missing": Case(gone("out/features.h5"), MATCH, 2, "features.h5"),
    "signature only": Case(file("out/features.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000)), MATCH, 2, "features.h5"),
    "a journal of rubbish": Case(file("out/features.h5.journal", RANDOM), RUN, 0, "verified    3"),
    "a journal that is a folder": Case(folder("out/features.h5.journal"), RUN, 2, "features.h5"),
    "no keypoints": Case(store("features.h5", lambda f: f.__delitem__(KEYPOINTS)), MATCH, 1, FIRST),
    "no descriptors": Case(store("features.h5", lambda f: f.__delitem__(DESCRIPTORS)), MATCH, 1, FIRST),
    "no scores": Case(store("features.h5", lambda f: f.__delitem__(SCORES)), MATCH, 1, FIRST),
    "no size": Case(store("features.h5", lambda f: f.__delitem__(SIZE)), MATCH, 2, FIRST),
    "NaN keypoints": Case(store("features.h5", replaced(KEYPOINTS, at(0, np.nan))), MATCH, 2, FIRST),
    "infinite keypoints": Case(store("features.h5", replaced(KEYPOINTS, at(0, np.inf))), MATCH, 2, FIRST),
    "NaN descriptors": Case(store("features.h5", replaced(DESCRIPTORS, at(0, np.nan))), MATCH, 0, "pairs       3"),
    "keypoints of three columns": Case(
        store("features.h5", replaced(KEYPOINTS, lambda k: np.c_[k, k[:, 0]])), MATCH, 2, FIRST
    ),
    "keypoints in a row": Case(store("features.h5", replaced(KEYPOINTS, np.ravel)), MATCH, 2, FIRST),
    "one keypoint, a number": Case(store("features.h5", replaced(KEYPOINTS, lambda k: k[0, 0])), MATCH, 2, FIRST),
    "keypoints that are text": Case(store("features.h5", dataset(FIRST, "keypoints", [["a", "b"]])), MATCH, 1, FIRST),
    "keypoints that are complex": Case(store("features.h5", replaced(KEYPOINTS, lambda k: k + 1j)), MATCH, 1, FIRST),
    "keypoints of an own type": Case(
        store("features.h5", dataset(FIRST, "keypoints", np.zeros(5, [("x", "f4"), ("y", "f4")]))), MATCH, 1, FIRST
    ),
    "keypoints that are a group": Case(
        store("features.h5", lambda f: (f.__delitem__(KEYPOINTS), f.create_group(KEYPOINTS))), MATCH, 1, FIRST
    ),
    "empty keypoints": Case(store("features.h5", dataset(FIRST, "keypoints", h5py.Empty("f4"))), MATCH, 2, FIRST),
    "ten billion keypoints": Case(
        store("features.h5", dataset(FIRST, "keypoints", None, shape=(10**10, 2), dtype="f4", chunks=(1024, 2))),
        MATCH,
        1,
        FIRST,
    ),
    "fewer descriptors": Case(store("features.h5", replaced(DESCRIPTORS, lambda d: d[:, :-1])), MATCH, 1, FIRST),
    "descriptors of another length": Case(
        store("features.h5", replaced(DESCRIPTORS, lambda d: d[:8])), MATCH, 1, FIRST
    ),
    "size of three": Case(store("features.h5", dataset(FIRST, "image_size", [1, 2, 3])), MATCH, 2, FIRST),
    "size of nothing": Case(store("features.h5", replaced(SIZE, at(slice(None), 0))), MATCH, 2, FIRST),
    "another's size": Case(store("features.h5", replaced(SIZE, lambda s: s + 1)), MATCH, 2, FIRST),
    "link to itself": Case(store("features.h5", linked("loop", h5py.SoftLink("/loop"))), MATCH, 0, "pairs       3"),
    "link to the root": Case(store("features.h5", linked("round", h5py.SoftLink("/"))), MATCH, 0, "pairs       3"),
    "hard link to the root": Case(
        store("features.h5", lambda f: f.__setitem__("round", f["/"])), MATCH, 0, "pairs       3"
    ),
    "link to another file": Case(
        store("features.h5", linked(FIRST, h5py.ExternalLink("/etc/passwd", "/"))), MATCH, 1, FIRST
    ),
    "link to a file that hangs": Case(
        after(lambda f: os.mkfifo(f / "pipe"), store("features.h5", linked(FIRST, h5py.ExternalLink("../pipe", "/")))),
        MATCH,
        1,
        FIRST,
    ),
    "data in another file": Case(
        store(
            "features.h5",
            lambda f: (
                f.__delitem__(KEYPOINTS),
                f.create_dataset(KEYPOINTS, (50, 2), "f4", external=[("/etc/passwd", 0, 400)]),
            ),
        ),
        MATCH,
        1,
        FIRST,
    ),
    "unknown compression": Case(
        store("features.h5", lambda f: (f.__delitem__(SCORES), unreadable_filter(f, SCORES))), MATCH, 1, FIRST
    ),
    "provenance that is no JSON": Case(
        store("features.h5", lambda f: f.attrs.__setitem__("lgbatch", "{")), MATCH, 2, "damaged"
    ),
    "provenance that is a number": Case(
        store("features.h5", lambda f: f.attrs.__setitem__("lgbatch", 7)), MATCH, 2, "damaged"
    ),
    "provenance that is a list": Case(
        store("features.h5", lambda f: f.attrs.__setitem__("lgbatch", "[]")), RUN, 2, "features.h5"
    ),
    "image folder that is a number": Case(
        store("features.h5", lambda f: f.attrs.__setitem__("lgbatch_image_folder", 7)), MATCH, 2, "images"
    ),
    "image folder that is gone": Case(
        store("features.h5", lambda f: f.attrs.__setitem__("lgbatch_image_folder", "/nowhere")), MATCH, 2, "--images"
    ),
    "made with other settings": Case(lambda f: None, (*EXTRACT, "--max-keypoints", "7"), 2, "max_keypoints"),
}


def unreadable_filter(opened: h5py.File, name: str) -> None:
    """A dataset whose filter nobody has."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((10,))
    creation.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    made = h5py.h5d.create(opened.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((10,)), creation)
    made.write_direct_chunk((0,), bytes(40))


MATCHES = {
    "zero length": Case(file("out/matches.h5", b""), RUN, 2, "matches.h5"),
    "random": Case(file("out/matches.h5", RANDOM), MATCH, 2, "matches.h5"),
    "half": Case(cut("out/matches.h5", 0.5), RUN, 2, "matches.h5"),
    "a folder": Case(folder("out/matches.h5"), RUN, 2, "matches.h5"),
    "the features": Case(lambda f: shutil.copy(f / "out/features.h5", f / "out/matches.h5"), MATCH, 2, "matches.h5"),
    "out of range": Case(store("matches.h5", replaced(MATCHES0, at(0, 99_999))), MATCH, 2, FIRST),
    "beyond int32": Case(
        store("matches.h5", replaced(MATCHES0, lambda m: m.astype(np.int64) + 2**40)), MATCH, 2, FIRST
    ),
    "minus five": Case(store("matches.h5", replaced(MATCHES0, at(slice(None), -5))), MATCH, 0, "pairs       3"),
    "one keypoint twice": Case(store("matches.h5", replaced(MATCHES0, at(slice(None), 0))), MATCH, 2, FIRST),
    "more than keypoints": Case(
        store("matches.h5", replaced(MATCHES0, lambda m: np.r_[m, np.arange(500, 900)])), MATCH, 2, FIRST
    ),
    "floats": Case(store("matches.h5", replaced(MATCHES0, lambda m: m + 0.5)), MATCH, 2, FIRST),
    "text": Case(store("matches.h5", dataset(PAIR, "matches0", ["a", "b"])), MATCH, 2, FIRST),
    "two columns": Case(store("matches.h5", replaced(MATCHES0, lambda m: np.c_[m, m])), MATCH, 2, FIRST),
    "a number": Case(store("matches.h5", replaced(MATCHES0, lambda m: m[0])), MATCH, 2, FIRST),
    "no scores": Case(store("matches.h5", lambda f: f.__delitem__(MATCHING)), MATCH, 2, FIRST),
    "fewer scores": Case(store("matches.h5", replaced(MATCHING, lambda s: s[:1])), MATCH, 2, FIRST),
    "no matches": Case(store("matches.h5", lambda f: f.__delitem__(MATCHES0)), MATCH, 2, FIRST),
    "ten billion": Case(
        store("matches.h5", dataset(PAIR, "matches0", None, shape=(10**10,), dtype="i4", chunks=(1024,))),
        MATCH,
        2,
        FIRST,
    ),
    "a pair that is data": Case(
        store("matches.h5", lambda f: (f.__delitem__(PAIR), f.__setitem__(PAIR, np.zeros(5)))), MATCH, 2, FIRST
    ),
    "an image that is data": Case(
        store("matches.h5", lambda f: f.__setitem__("x", np.zeros(5))), MATCH, 0, "pairs       3"
    ),
    "link to itself": Case(store("matches.h5", linked(PAIR, h5py.SoftLink(f"/{PAIR}"))), MATCH, 2, "matches.h5"),
    "link to another file": Case(
        store("matches.h5", linked("a.png", h5py.ExternalLink("/etc/passwd", "/"))), MATCH, 2, "matches.h5"
    ),
}
PAIRS_FILES = {
    "missing": Case(gone("out/pairs.txt"), MATCH, 2, "lgbatch pairs"),
    "a folder": Case(folder("out/pairs.txt"), MATCH, 2, "pairs.txt"),
    "a folder, written": Case(folder("out/pairs.txt"), RUN, 2, "pairs.txt"),
    "empty": Case(file("out/pairs.txt", b""), MATCH, 0, "pairs       0"),
    "random": Case(file("out/pairs.txt", RANDOM), MATCH, 1, "pairs.txt line"),
    "UTF-16": Case(file("out/pairs.txt", f"{FIRST} x\n".encode("utf-16")), MATCH, 1, "pairs.txt line"),
    "one word": Case(file("out/pairs.txt", b"a.png\n"), MATCH, 1, "1 words"),
    "three words": Case(file("out/pairs.txt", b"a b c\n"), MATCH, 1, "3 words"),
    "unknown": Case(file("out/pairs.txt", b"a.png nobody.png\n"), MATCH, 1, "no features of nobody.png"),
    "upwards": Case(file("out/pairs.txt", b"../../etc/passwd a.png\n"), MATCH, 1, "no features of"),
    "absolute": Case(file("out/pairs.txt", b"/etc/passwd /\n"), MATCH, 1, "no features of"),
    "markup": Case(file("out/pairs.txt", b"<script>alert(1)</script> 'a'\n"), MATCH, 1, "no features of"),
    "terminal codes": Case(file("out/pairs.txt", b"\x1b[2J\x1b]0;x\x07 a.png\n"), MATCH, 1, "control character"),
    "nulls": Case(file("out/pairs.txt", b"a.png\0 \0\n" * 3), MATCH, 1, "control character"),
    "not UTF-8": Case(file("out/pairs.txt", b"\xff\xfe\xfd a.png\n"), MATCH, 1, "UTF-8"),
    "a line of ten million": Case(file("out/pairs.txt", b"x" * 10_000_000), MATCH, 1, "1 words"),
    "a million lines": Case(file("out/pairs.txt", b"a.png a.png\n" * 1_000_000), MATCH, 0, "pairs       0"),
    "a pair with itself": Case(file("out/pairs.txt", b"a.png a.png\n"), MATCH, 0, "1 self"),
    "a photo": Case(lambda f: shutil.copy(f / "photos/a.png", f / "out/pairs.txt"), MATCH, 1, "pairs.txt line"),
}
DATABASES = {
    "random": Case(file("out/database.db", RANDOM), MATCH, 2, "database.db"),
    "random, mapped": Case(file("out/database.db", RANDOM), RECONSTRUCT, 2, "database.db"),
    "text": Case(file("out/database.db", b"hello\n" * 1000), RUN, 2, "database.db"),
    "zero length": Case(file("out/database.db", b""), RECONSTRUCT, 2, "database.db"),
    "zero length, filled": Case(file("out/database.db", b""), MATCH, 0, "pairs       3"),
    "half": Case(cut("out/database.db", 0.5), MATCH, 2, "database.db"),
    "half, mapped": Case(cut("out/database.db", 0.5), RECONSTRUCT, 2, "database.db"),
    "header": Case(cut("out/database.db", 0.001), MATCH, 2, "database.db"),
    "of another program": Case(other_database, MATCH, 0, "pairs       3"),
    "of another program, mapped": Case(other_database, RECONSTRUCT, 2, "database.db"),
    "a folder": Case(folder("out/database.db"), MATCH, 2, "database.db"),
    "a folder, mapped": Case(folder("out/database.db"), RECONSTRUCT, 2, "database.db"),
    "missing": Case(gone("out/database.db"), RECONSTRUCT, 2, "lgbatch match"),
    "empty tables": Case(
        sql(*(f"DELETE FROM {t}" for t in ("matches", "keypoints", "two_view_geometries", "images"))),
        RECONSTRUCT,
        2,
        "no images",
    ),
    "no keypoints": Case(sql("DELETE FROM keypoints", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "keypoints"),
    "keypoints of minus one": Case(
        sql("UPDATE keypoints SET rows = -1", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "database.db"
    ),
    "keypoints that end early": Case(
        sql("UPDATE keypoints SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "database.db"
    ),
    "matches that end early": Case(
        sql("UPDATE matches SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "database.db"
    ),
    "matches of a million rows": Case(
        sql("UPDATE matches SET rows = 1000000", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "database.db"
    ),
    "a pair of nobody": Case(sql("UPDATE matches SET pair_id = pair_id + 7"), RECONSTRUCT, 2, "COLMAP failed"),
    "a pair that is negative": Case(
        sql("UPDATE matches SET pair_id = -1 WHERE rowid = 2147483649"), RECONSTRUCT, 2, "COLMAP failed"
    ),
    "an unknown camera model": Case(sql("UPDATE cameras SET model = 99"), RECONSTRUCT, 2, "COLMAP failed"),
    "a camera without parameters": Case(sql("UPDATE cameras SET params = x''"), RECONSTRUCT, 2, "COLMAP failed"),
    "images without a camera": Case(sql("DELETE FROM cameras"), RECONSTRUCT, 2, "COLMAP failed"),
    "other keypoints": Case(
        sql(
            "DELETE FROM keypoints WHERE image_id = 1",
            "INSERT INTO keypoints SELECT 1, rows, cols, data FROM keypoints WHERE image_id = 2",
        ),
        MATCH,
        2,
        FIRST,
    ),
    "a log of rubbish": Case(file("out/database.db-wal", RANDOM), MATCH, 0, "pairs       3"),
    "a log that is a folder": Case(folder("out/database.db-wal"), MATCH, 2, "COLMAP failed"),
}
EXTRACTOR, STAGE = "models/disk-extractor-v1.onnx", "models/disk-stages-v1/layer3.onnx"
FRESH = ("run", "photos", "-o", "new")
MODELS = {
    **{
        f"{what} {kind}": Case(make(path), FRESH, 2, "lgbatch export disk")
        for what, path in (("extractor", EXTRACTOR), ("stage", STAGE))
        for kind, make in {
            "empty": lambda path: file(path, b""),
            "random": lambda path: file(path, RANDOM),
            "half": lambda path: cut(path, 0.5),
            "text": lambda path: file(path, b"hello\n"),
            "a folder": folder,
        }.items()
    },
    "extractor that is a stage": Case(
        lambda f: shutil.copy(f / STAGE, f / EXTRACTOR), FRESH, 2, "not a disk extractor"
    ),
    "stage that is an extractor": Case(lambda f: shutil.copy(f / EXTRACTOR, f / STAGE), FRESH, 2, "not a disk layer"),
    "stage missing": Case(gone(STAGE), FRESH, 2, "lgbatch export disk"),
    "stages that are a file": Case(file("models/disk-stages-v1", b""), FRESH, 2, "lgbatch export disk"),
    "of another program": Case(lambda f: other_model(f / EXTRACTOR), FRESH, 2, "not made by lgbatch"),
    "folder that is a file": Case(after(gone("models"), file("models", b"x")), FRESH, 2, "models"),
}


def other_model(path: Path) -> None:
    import onnx

    text = '<ir_version: 10, opset_import: ["": 20]> other (float[n] x) => (float[n] y) { y = Identity (x) }'
    onnx.save_model(onnx.parser.parse_model(text), path)


def config(text: bytes) -> Maker:
    return file("x.toml", text)


CONFIG = (*FRESH, "--config", "x.toml")
SETTINGS = {
    "no TOML": Case(config(b"max_keypoints ="), CONFIG, 2, "TOML"),
    "random": Case(config(RANDOM), CONFIG, 2, "x.toml"),
    "unknown": Case(config(b"max_keypoint = 7"), CONFIG, 2, "max_keypoints"),
    "text for a number": Case(config(b"max_keypoints = '7'"), CONFIG, 2, "max_keypoints"),
    "true for a number": Case(config(b"max_keypoints = true"), CONFIG, 2, "max_keypoints"),
    "too much": Case(config(b"max_keypoints = 99999999999999999999"), CONFIG, 2, "max_keypoints"),
    "not a number": Case(config(b"filter_threshold = nan"), CONFIG, 2, "filter_threshold"),
    "infinite": Case(config(b"filter_threshold = inf"), CONFIG, 2, "filter_threshold"),
    "a list": Case(config(b"pairing = ['exhaustive']"), CONFIG, 2, "pairing"),
    "a table": Case(config(b"[max_keypoints]\nx = 1"), CONFIG, 2, "max_keypoints"),
    "deep": Case(config(b"x = " + b"[" * 100_000), CONFIG, 2, "x.toml"),
    "twice": Case(config(b"resize = 1\nresize = 2"), CONFIG, 2, "TOML"),
    "a huge number": Case(config(b"resize = " + b"9" * 10_000), CONFIG, 2, "x.toml"),
    "unknown camera": Case(config(b"camera_model = 'X'"), CONFIG, 2, "SIMPLE_RADIAL"),
    "a camera with an odd name": Case(config(b"camera_model = 'a\\nb\\u001b[2J'"), CONFIG, 2, "camera"),
    "an odd key": Case(config(b'"a\\nb\\u001b[2J" = 1'), CONFIG, 2, "unknown setting"),
    "missing": Case(lambda f: None, CONFIG, 2, "x.toml"),
    "a folder": Case(folder("x.toml"), CONFIG, 2, "x.toml"),
    "empty": Case(config(b""), CONFIG, 0, "verified    3"),
    "no preset": Case(lambda f: None, (*FRESH, "--config", "../x"), 2, "preset"),
}
FOLDERS = {
    "photos missing": Case(gone("photos"), RUN, 2, "photos"),
    "photos that are a list": Case(file("photos", b"a.png\nb.png\n"), RUN, 2, "photos"),
    "photos that are one photo": Case(lambda f: None, ("run", "photos/a.png", "-o", "out"), 2, "photos"),
    "no photos": Case(gone(*(f"photos/{name}" for name in ("a.png", "day 1"))), RUN, 2, "no photos"),
    "no name": Case(lambda f: None, ("run", "", "-o", "new"), 0, ""),
    "workspace that is a file": Case(after(gone("out"), file("out", b"x")), RUN, 2, "out"),
    "workspace below a file": Case(lambda f: None, ("run", "photos", "-o", "photos/a.png/out"), 2, "a.png"),
    "workspace of odd characters": Case(lambda f: None, ("run", "photos", "-o", "new\n\x1b[2J"), 0, "verified    3"),
    "sparse that is a file": Case(after(gone("out/sparse"), file("out/sparse", b"x")), RUN, 2, "sparse"),
    "sparse.partial that is a file": Case(file("out/sparse.partial", b"x"), RUN, 2, "sparse"),
    "summary that is a folder": Case(folder("out/summary.json"), RUN, 2, "summary.json"),
    "a photo that has gone": Case(gone("photos/a.png", "out/database.db"), MATCH, 2, "a.png"),
    "a photo that is another now": Case(
        after(gone("out/database.db"), lambda f: shutil.copy(f / "photos/day 1/b.bmp", f / "photos/a.png")),
        MATCH,
        0,
        "",
    ),
    "workspace in the photos": Case(lambda f: None, ("run", "photos", "-o", "photos/out"), 0, "verified    3"),
}
ALL = {
    f"{title}: {kind}": case
    for title, cases in {
        "features": FEATURES,
        "matches": MATCHES,
        "pairs": PAIRS_FILES,
        "database": DATABASES,
        "models": MODELS,
        "settings": SETTINGS,
        "folders": FOLDERS,
    }.items()
    for kind, case in cases.items()
}

KNOWN = {
    "features: no size",
    "features: one keypoint, a number",
    "features: keypoints that are text",
    "features: keypoints that are complex",
    "features: keypoints of an own type",
    "features: empty keypoints",
    "features: ten billion keypoints",
    "features: descriptors of another length",
    "features: size of three",
    "features: provenance that is a number",
    "features: provenance that is a list",
    "features: image folder that is a number",
    "matches: more than keypoints",
    "matches: text",
    "matches: two columns",
    "matches: a number",
    "matches: no scores",
    "matches: fewer scores",
    "matches: no matches",
    "matches: ten billion",
    "matches: a pair that is data",
    "matches: link to itself",
    "matches: link to another file",
}
"""Told in one line, but as a bug in lgbatch: the stores do not check what lies in an item before they use it."""
