"""Bad pairs files, databases, models, settings and folders: how each is made, and how the command is to end."""

import shutil
from pathlib import Path

from lgbatch.runtime.registry import FORMAT
from tests.torture.bad_stores import FEATURES, MATCHES
from tests.torture.making import (
    FIRST,
    MATCH,
    RANDOM,
    RECONSTRUCT,
    RUN,
    Case,
    Maker,
    after,
    cut,
    file,
    folder,
    gone,
    sql,
)


def other_database(folder: Path) -> None:
    gone("out/database.db")(folder)
    sql("CREATE TABLE places (url TEXT)", "INSERT INTO places VALUES ('x')")(folder)


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
    "of another program": Case(other_database, MATCH, 2, "another program's"),
    "of another program, mapped": Case(other_database, RECONSTRUCT, 2, "another program's"),
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
        sql("UPDATE keypoints SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "matches that end early": Case(
        sql("UPDATE matches SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "matches of a million rows": Case(
        sql("UPDATE matches SET rows = 1000000", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "a pair of nobody": Case(sql("UPDATE matches SET pair_id = pair_id + 7"), RECONSTRUCT, 2, "database.db"),
    "a pair that is negative": Case(
        sql("UPDATE matches SET pair_id = -1 WHERE rowid = 2147483649"), RECONSTRUCT, 2, "database.db"
    ),
    "an unknown camera model": Case(sql("UPDATE cameras SET model = 99"), RECONSTRUCT, 2, ""),
    "a camera without parameters": Case(sql("UPDATE cameras SET params = x''"), RECONSTRUCT, 2, ""),
    "images without a camera": Case(sql("DELETE FROM cameras"), RECONSTRUCT, 2, ""),
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
    "a log that is a folder": Case(folder("out/database.db-wal"), MATCH, 2, "database.db"),
}
STAGES = f"models/disk-stages-v{FORMAT}"
EXTRACTOR, STAGE = f"models/disk-extractor-v{FORMAT}.onnx", f"{STAGES}/layer3.onnx"
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
    "stages that are a file": Case(file(STAGES, b""), FRESH, 2, "lgbatch export disk"),
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
