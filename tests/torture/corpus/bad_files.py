"""Corrupt and unusual pairs files, databases, models, settings files and folders, and how a command has to end."""

from pathlib import Path

from lgbatch.runtime.registry import FORMAT
from tests.torture.corpus.bad_stores import FEATURES, MATCHES
from tests.torture.corpus.damage import (
    FIRST,
    MATCH,
    RANDOM,
    RECONSTRUCT,
    RUN,
    Case,
    Damage,
    chain,
    copy_file,
    edit_database,
    make_folder,
    nothing,
    remove,
    truncate,
    write_file,
)

PAIRS_FILES = {
    "missing": Case(remove("out/pairs.txt"), MATCH, 2, "lgbatch pairs"),
    "a folder": Case(make_folder("out/pairs.txt"), MATCH, 2, "pairs.txt"),
    "a folder, run": Case(make_folder("out/pairs.txt"), RUN, 2, "pairs.txt"),
    "empty": Case(write_file("out/pairs.txt", b""), MATCH, 2, "the file is empty"),
    "random": Case(write_file("out/pairs.txt", RANDOM), MATCH, 2, "pairs.txt lists no pairs"),
    "UTF-16": Case(write_file("out/pairs.txt", f"{FIRST} x\n".encode("utf-16")), MATCH, 1, "no features of x"),
    "one word": Case(write_file("out/pairs.txt", b"a.png\n"), MATCH, 2, "1 word instead"),
    "three words": Case(write_file("out/pairs.txt", b"a b c\n"), MATCH, 2, "3 words"),
    "unknown image": Case(write_file("out/pairs.txt", b"a.png nobody.png\n"), MATCH, 1, "no features of nobody.png"),
    "relative path": Case(write_file("out/pairs.txt", b"../../etc/passwd a.png\n"), MATCH, 1, "no features of"),
    "absolute path": Case(write_file("out/pairs.txt", b"/etc/passwd /\n"), MATCH, 1, "no features of"),
    "markup": Case(write_file("out/pairs.txt", b"<script>alert(1)</script> 'a'\n"), MATCH, 1, "no features of"),
    "terminal codes": Case(write_file("out/pairs.txt", b"\x1b[2J\x1b]0;x\x07 a.png\n"), MATCH, 2, "control character"),
    "null bytes": Case(write_file("out/pairs.txt", b"a.png\0 \0\n" * 3), MATCH, 2, "NUL characters"),
    "not UTF-8": Case(write_file("out/pairs.txt", b"\xfd\xfe\xff a.png\n"), MATCH, 2, "UTF-8"),
    "a line of ten million bytes": Case(write_file("out/pairs.txt", b"x" * 10_000_000), MATCH, 2, "1 word instead"),
    "a million lines": Case(write_file("out/pairs.txt", b"a.png a.png\n" * 1_000_000), MATCH, 2, "no line has two"),
    "a pair with itself": Case(write_file("out/pairs.txt", b"a.png a.png\n"), MATCH, 2, "no line has two"),
    "a photo": Case(copy_file("photos/a.png", "out/pairs.txt"), MATCH, 2, "pairs.txt lists no pairs"),
}
FOREIGN_DATABASE = chain(
    remove("out/database.db"),
    edit_database("CREATE TABLE places (url TEXT)", "INSERT INTO places VALUES ('x')"),
)
DATABASES = {
    "random": Case(write_file("out/database.db", RANDOM), MATCH, 2, "database.db"),
    "random, reconstruct": Case(write_file("out/database.db", RANDOM), RECONSTRUCT, 2, "database.db"),
    "text": Case(write_file("out/database.db", b"hello\n" * 1000), RUN, 2, "database.db"),
    "zero length": Case(write_file("out/database.db", b""), RECONSTRUCT, 2, "database.db"),
    "zero length, match": Case(write_file("out/database.db", b""), MATCH, 0, "pairs       3"),
    "half": Case(truncate("out/database.db", 0.5), MATCH, 2, "database.db"),
    "half, reconstruct": Case(truncate("out/database.db", 0.5), RECONSTRUCT, 2, "database.db"),
    "header": Case(truncate("out/database.db", 0.001), MATCH, 2, "database.db"),
    "of another program": Case(FOREIGN_DATABASE, MATCH, 2, "another program's"),
    "of another program, reconstruct": Case(FOREIGN_DATABASE, RECONSTRUCT, 2, "another program's"),
    "a folder": Case(make_folder("out/database.db"), MATCH, 2, "database.db"),
    "a folder, reconstruct": Case(make_folder("out/database.db"), RECONSTRUCT, 2, "database.db"),
    "missing": Case(remove("out/database.db"), RECONSTRUCT, 2, "lgbatch match"),
    "empty tables": Case(
        edit_database(*(f"DELETE FROM {t}" for t in ("matches", "keypoints", "two_view_geometries", "images"))),
        RECONSTRUCT,
        2,
        "no images",
    ),
    "no keypoints": Case(
        edit_database("DELETE FROM keypoints", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, "keypoints"
    ),
    "negative number of keypoints": Case(
        edit_database("UPDATE keypoints SET rows = -1", "DELETE FROM two_view_geometries"),
        RECONSTRUCT,
        2,
        "database.db",
    ),
    "truncated keypoints": Case(
        edit_database("UPDATE keypoints SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "truncated matches": Case(
        edit_database("UPDATE matches SET data = x'00'", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "more rows than matches": Case(
        edit_database("UPDATE matches SET rows = 1000000", "DELETE FROM two_view_geometries"), RECONSTRUCT, 2, ""
    ),
    "pair of unknown images": Case(
        edit_database("UPDATE matches SET pair_id = pair_id + 7"), RECONSTRUCT, 2, "database.db"
    ),
    "negative pair id": Case(
        edit_database("UPDATE matches SET pair_id = -1 WHERE rowid = 2147483649"), RECONSTRUCT, 2, "database.db"
    ),
    "unknown camera model": Case(edit_database("UPDATE cameras SET model = 99"), RECONSTRUCT, 2, ""),
    "camera without parameters": Case(edit_database("UPDATE cameras SET params = x''"), RECONSTRUCT, 2, ""),
    "images without a camera": Case(edit_database("DELETE FROM cameras"), RECONSTRUCT, 2, ""),
    "keypoints of another image": Case(
        edit_database(
            "DELETE FROM keypoints WHERE image_id = 1",
            "INSERT INTO keypoints SELECT 1, rows, cols, data FROM keypoints WHERE image_id = 2",
        ),
        MATCH,
        0,
        "built anew",
    ),
    "random write-ahead log": Case(write_file("out/database.db-wal", RANDOM), MATCH, 0, "pairs       3"),
    "write-ahead log that is a folder": Case(make_folder("out/database.db-wal"), MATCH, 2, "database.db"),
}
_STAGES = f"models/aliked-stages-v{FORMAT}"
_EXTRACTOR, _STAGE = f"models/aliked-n16rot-extractor-v{FORMAT}.onnx", f"{_STAGES}/layer3.onnx"
NEW_RUN = ("run", "photos", "-o", "new")


def write_foreign_model(path: Path) -> None:
    """Write a valid ONNX model that lgbatch did not export."""
    import onnx

    text = '<ir_version: 10, opset_import: ["": 20]> other (float[n] x) => (float[n] y) { y = Identity (x) }'
    onnx.save_model(onnx.parser.parse_model(text), path)


_DAMAGES = {
    "empty": lambda path: write_file(path, b""),
    "random": lambda path: write_file(path, RANDOM),
    "half": lambda path: truncate(path, 0.5),
    "text": lambda path: write_file(path, b"hello\n"),
    "a folder": make_folder,
}
MODELS = {
    **{
        f"{model} {kind}": Case(damage(path), NEW_RUN, 2, "lgbatch export aliked-n16rot")
        for model, path in (("extractor", _EXTRACTOR), ("stage", _STAGE))
        for kind, damage in _DAMAGES.items()
    },
    "extractor that is a stage": Case(copy_file(_STAGE, _EXTRACTOR), NEW_RUN, 2, "not the extractor of aliked-n16rot"),
    "stage that is an extractor": Case(copy_file(_EXTRACTOR, _STAGE), NEW_RUN, 2, "not the layer of aliked"),
    "stage missing": Case(remove(_STAGE), NEW_RUN, 2, "lgbatch export aliked-n16rot"),
    "stages that are a file": Case(write_file(_STAGES, b""), NEW_RUN, 2, "lgbatch export aliked-n16rot"),
    "of another program": Case(lambda root: write_foreign_model(root / _EXTRACTOR), NEW_RUN, 2, "not made by lgbatch"),
    "folder that is a file": Case(chain(remove("models"), write_file("models", b"x")), NEW_RUN, 2, "models"),
}


def config(text: bytes) -> Damage:
    """Write a settings file."""
    return write_file("x.toml", text)


_WITH_CONFIG = (*NEW_RUN, "--config", "x.toml")
SETTINGS = {
    "not TOML": Case(config(b"max_keypoints ="), _WITH_CONFIG, 2, "TOML"),
    "random": Case(config(RANDOM), _WITH_CONFIG, 2, "x.toml"),
    "unknown setting": Case(config(b"max_keypoint = 7"), _WITH_CONFIG, 2, "max_keypoints"),
    "text for a number": Case(config(b"max_keypoints = '7'"), _WITH_CONFIG, 2, "max_keypoints"),
    "true for a number": Case(config(b"max_keypoints = true"), _WITH_CONFIG, 2, "max_keypoints"),
    "too large": Case(config(b"max_keypoints = 99999999999999999999"), _WITH_CONFIG, 2, "max_keypoints"),
    "NaN": Case(config(b"filter_threshold = nan"), _WITH_CONFIG, 2, "filter_threshold"),
    "infinite": Case(config(b"filter_threshold = inf"), _WITH_CONFIG, 2, "filter_threshold"),
    "a list": Case(config(b"pairing = ['exhaustive']"), _WITH_CONFIG, 2, "pairing"),
    "a table": Case(config(b"[max_keypoints]\nx = 1"), _WITH_CONFIG, 2, "max_keypoints"),
    "deeply nested": Case(config(b"x = " + b"[" * 100_000), _WITH_CONFIG, 2, "x.toml"),
    "set twice": Case(config(b"resize = 1\nresize = 2"), _WITH_CONFIG, 2, "TOML"),
    "a huge number": Case(config(b"resize = " + b"9" * 10_000), _WITH_CONFIG, 2, "x.toml"),
    "unknown camera model": Case(config(b"camera_model = 'X'"), _WITH_CONFIG, 2, "SIMPLE_RADIAL"),
    "camera model with control characters": Case(
        config(b"camera_model = 'a\\nb\\u001b[2J'"), _WITH_CONFIG, 2, "camera"
    ),
    "setting with control characters": Case(config(b'"a\\nb\\u001b[2J" = 1'), _WITH_CONFIG, 2, "unknown setting"),
    "missing": Case(nothing, _WITH_CONFIG, 2, "x.toml"),
    "a folder": Case(make_folder("x.toml"), _WITH_CONFIG, 2, "x.toml"),
    "empty": Case(config(b""), _WITH_CONFIG, 0, "verified    3"),
    "unknown preset": Case(nothing, (*NEW_RUN, "--config", "../x"), 2, "preset"),
}
FOLDERS = {
    "photos missing": Case(remove("photos"), RUN, 2, "photos"),
    "photos that are a text file": Case(write_file("photos", b"a.png\nb.png\n"), RUN, 2, "photos"),
    "photos that are one photo": Case(nothing, ("run", "photos/a.png", "-o", "out"), 2, "photos"),
    "no photos": Case(remove(*(f"photos/{name}" for name in ("a.png", "day 1"))), RUN, 2, "no photos"),
    "empty path": Case(nothing, ("run", "", "-o", "new"), 0, ""),
    "workspace that is a file": Case(chain(remove("out"), write_file("out", b"x")), RUN, 2, "out"),
    "workspace below a file": Case(nothing, ("run", "photos", "-o", "photos/a.png/out"), 2, "a.png"),
    "workspace with control characters": Case(nothing, ("run", "photos", "-o", "new\n\x1b[2J"), 0, "verified    3"),
    "sparse that is a file": Case(chain(remove("out/sparse"), write_file("out/sparse", b"x")), RUN, 2, "sparse"),
    "sparse.partial that is a file": Case(write_file("out/sparse.partial", b"x"), RUN, 2, "sparse"),
    "summary that is a folder": Case(make_folder("out/summary.json"), RUN, 2, "summary.json"),
    "photo that is gone": Case(remove("photos/a.png", "out/database.db"), MATCH, 0, "left out"),
    "photo that was replaced": Case(
        chain(remove("out/database.db"), copy_file("photos/day 1/b.bmp", "photos/a.png")),
        MATCH,
        0,
        "",
    ),
    "workspace in the photos": Case(nothing, ("run", "photos", "-o", "photos/out"), 0, "verified    3"),
}
ALL = {
    f"{input_kind}: {kind}": case
    for input_kind, cases in {
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
