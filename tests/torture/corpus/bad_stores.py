"""Corrupt and unusual features.h5 and matches.h5, the command that reads each, and how it has to end."""

import os

import h5py
import numpy as np

from tests.torture.corpus.damage import (
    EXTRACT,
    FIRST,
    MATCH,
    PAIRS,
    RANDOM,
    RUN,
    Case,
    Damage,
    StoreEdit,
    chain,
    copy_file,
    delete,
    edit_store,
    make_folder,
    map_dataset,
    nothing,
    remove,
    replace_dataset,
    set_attribute,
    set_link,
    set_rows,
    truncate,
    write_file,
)

KEYPOINTS, DESCRIPTORS, SCORES, SIZE = (
    f"{FIRST}/{name}" for name in ("keypoints", "descriptors", "scores", "image_size")
)
PAIR = "a.png/day 1-b.bmp"
MATCHES0, MATCHING_SCORES = f"{PAIR}/matches0", f"{PAIR}/matching_scores0"


def features(edit: StoreEdit) -> Damage:
    """Edit features.h5."""
    return edit_store("features.h5", edit)


def matches(edit: StoreEdit) -> Damage:
    """Edit matches.h5."""
    return edit_store("matches.h5", edit)


def use_unknown_filter(opened: h5py.File) -> None:
    """Replace the scores by a dataset with a compression filter that does not exist."""
    del opened[SCORES]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((10,))
    creation.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((10,))
    dataset = h5py.h5d.create(opened.id, SCORES.encode(), h5py.h5t.IEEE_F32LE, space, creation)
    dataset.write_direct_chunk((0,), bytes(40))


def write_noise(opened: h5py.File) -> None:
    """Replace the compressed values of the matches."""
    opened[MATCHES0].id.write_direct_chunk((0,), RANDOM[:100])


def use_external_data(opened: h5py.File) -> None:
    """Replace the keypoints by a dataset whose values are the bytes of another file."""
    del opened[KEYPOINTS]
    opened.create_dataset(KEYPOINTS, (50, 2), "f4", external=[("/etc/passwd", 0, 400)])


def make_keypoints_a_group(opened: h5py.File) -> None:
    del opened[KEYPOINTS]
    opened.create_group(KEYPOINTS)


FEATURES = {
    "zero length": Case(write_file("out/features.h5", b""), MATCH, 2, "features.h5"),
    "random": Case(write_file("out/features.h5", RANDOM), MATCH, 2, "features.h5"),
    "half": Case(truncate("out/features.h5", 0.5), RUN, 2, "features.h5"),
    "all but the end": Case(truncate("out/features.h5", 0.999), MATCH, 2, "features.h5"),
    "a folder": Case(make_folder("out/features.h5"), RUN, 2, "features.h5"),
    "a folder, read": Case(make_folder("out/features.h5"), PAIRS, 2, "features.h5"),
    "missing": Case(remove("out/features.h5"), MATCH, 2, "features.h5"),
    "signature only": Case(write_file("out/features.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000)), MATCH, 2, "features.h5"),
    "random journal": Case(write_file("out/features.h5.journal", RANDOM), RUN, 0, "verified    3"),
    "journal that is a folder": Case(make_folder("out/features.h5.journal"), RUN, 2, "features.h5"),
    "no keypoints": Case(features(delete(KEYPOINTS)), MATCH, (1, 2), ""),
    "no descriptors": Case(features(delete(DESCRIPTORS)), MATCH, (1, 2), ""),
    "no scores": Case(features(delete(SCORES)), MATCH, (1, 2), ""),
    "no image size": Case(features(delete(SIZE)), MATCH, 1, FIRST),
    "NaN keypoints": Case(features(map_dataset(KEYPOINTS, set_rows(0, np.nan))), MATCH, 1, FIRST),
    "infinite keypoints": Case(features(map_dataset(KEYPOINTS, set_rows(0, np.inf))), MATCH, 1, FIRST),
    "NaN descriptors": Case(features(map_dataset(DESCRIPTORS, set_rows(0, np.nan))), MATCH, 0, "pairs       3"),
    "keypoints of three columns": Case(
        features(map_dataset(KEYPOINTS, lambda k: np.c_[k, k[:, 0]])), MATCH, (1, 2), ""
    ),
    "flat keypoints": Case(features(map_dataset(KEYPOINTS, np.ravel)), MATCH, (1, 2), ""),
    "scalar keypoints": Case(features(map_dataset(KEYPOINTS, lambda k: k[0, 0])), MATCH, 1, FIRST),
    "text keypoints": Case(features(replace_dataset(KEYPOINTS, [["a", "b"]])), MATCH, (1, 2), ""),
    "complex keypoints": Case(features(map_dataset(KEYPOINTS, lambda k: k + 1j)), MATCH, (1, 2), ""),
    "compound keypoints": Case(
        features(replace_dataset(KEYPOINTS, np.zeros(5, [("x", "f4"), ("y", "f4")]))), MATCH, (1, 2), ""
    ),
    "keypoints that are a group": Case(features(make_keypoints_a_group), MATCH, (1, 2), ""),
    "empty keypoints": Case(features(replace_dataset(KEYPOINTS, h5py.Empty("f4"))), MATCH, 1, FIRST),
    "ten billion keypoints": Case(
        features(replace_dataset(KEYPOINTS, None, shape=(10**10, 2), dtype="f4", chunks=(1024, 2))),
        MATCH,
        (1, 2),
        "",
    ),
    "fewer descriptors": Case(features(map_dataset(DESCRIPTORS, lambda d: d[:, :-1])), MATCH, 1, FIRST),
    "descriptors of another length": Case(features(map_dataset(DESCRIPTORS, lambda d: d[:8])), MATCH, (1, 2), ""),
    "image size of three numbers": Case(features(replace_dataset(SIZE, [1, 2, 3])), MATCH, 1, FIRST),
    "image size of zero": Case(features(map_dataset(SIZE, set_rows(slice(None), 0))), MATCH, 1, FIRST),
    "image size of another photo": Case(features(map_dataset(SIZE, lambda s: s + 1)), MATCH, 2, FIRST),
    "link to itself": Case(features(set_link("loop", h5py.SoftLink("/loop"))), MATCH, (0, 2), ""),
    "link to the root": Case(features(set_link("round", h5py.SoftLink("/"))), MATCH, (0, 2), ""),
    "hard link to the root": Case(features(lambda opened: opened.__setitem__("round", opened["/"])), MATCH, (0, 2), ""),
    "link to another file": Case(features(set_link(FIRST, h5py.ExternalLink("/etc/passwd", "/"))), MATCH, (1, 2), ""),
    "link to a file that hangs": Case(
        chain(lambda root: os.mkfifo(root / "pipe"), features(set_link(FIRST, h5py.ExternalLink("../pipe", "/")))),
        MATCH,
        (1, 2),
        "",
    ),
    "data in another file": Case(features(use_external_data), MATCH, (1, 2), ""),
    "unknown compression": Case(features(use_unknown_filter), MATCH, (1, 2), ""),
    "provenance that is not JSON": Case(features(set_attribute("lgbatch", "{")), MATCH, 2, "damaged"),
    "provenance that is a number": Case(features(set_attribute("lgbatch", 7)), MATCH, 2, "damaged"),
    "provenance that is a list": Case(features(set_attribute("lgbatch", "[]")), RUN, 2, "features.h5"),
    "image folder that is a number": Case(features(set_attribute("lgbatch_image_folder", 7)), MATCH, 2, "images"),
    "image folder that is gone": Case(
        features(set_attribute("lgbatch_image_folder", "/nowhere")), MATCH, 2, "--images"
    ),
    "extracted with other settings": Case(nothing, (*EXTRACT, "--max-keypoints", "7"), 2, "max_keypoints"),
}

MATCHES = {
    "zero length": Case(write_file("out/matches.h5", b""), RUN, 2, "matches.h5"),
    "random": Case(write_file("out/matches.h5", RANDOM), MATCH, 2, "matches.h5"),
    "half": Case(truncate("out/matches.h5", 0.5), RUN, 2, "matches.h5"),
    "a folder": Case(make_folder("out/matches.h5"), RUN, 2, "matches.h5"),
    "copy of features.h5": Case(copy_file("out/features.h5", "out/matches.h5"), MATCH, 2, "matches.h5"),
    "indices out of range": Case(matches(map_dataset(MATCHES0, set_rows(0, 30_000))), MATCH, 2, FIRST),
    "indices beyond int32": Case(matches(map_dataset(MATCHES0, lambda m: m.astype(np.int64) + 2**40)), MATCH, 2, FIRST),
    "indices of minus five": Case(matches(map_dataset(MATCHES0, set_rows(slice(None), -5))), MATCH, 0, "pairs       3"),
    "one keypoint in all matches": Case(matches(map_dataset(MATCHES0, set_rows(slice(None), 0))), MATCH, 2, FIRST),
    "more rows than keypoints": Case(
        matches(map_dataset(MATCHES0, lambda m: np.r_[m, np.arange(500, 900)])), MATCH, (1, 2), ""
    ),
    "fractional indices": Case(matches(map_dataset(MATCHES0, lambda m: m + 0.5)), MATCH, 2, FIRST),
    "compressed noise": Case(matches(write_noise), MATCH, 2, FIRST),
    "text indices": Case(matches(replace_dataset(MATCHES0, ["a", "b"])), MATCH, (1, 2), ""),
    "two columns": Case(matches(map_dataset(MATCHES0, lambda m: np.c_[m, m])), MATCH, (1, 2), ""),
    "scalar matches": Case(matches(map_dataset(MATCHES0, lambda m: m[0])), MATCH, (1, 2), ""),
    "no scores": Case(matches(delete(MATCHING_SCORES)), MATCH, (1, 2), ""),
    "fewer scores": Case(matches(map_dataset(MATCHING_SCORES, lambda s: s[:1])), MATCH, (1, 2), ""),
    "no matches": Case(matches(delete(MATCHES0)), MATCH, (1, 2), ""),
    "ten billion": Case(
        matches(replace_dataset(MATCHES0, None, shape=(10**10,), dtype="i4", chunks=(1024,))),
        MATCH,
        (1, 2),
        "",
    ),
    "pair that is a dataset": Case(matches(replace_dataset(PAIR, np.zeros(5))), MATCH, (1, 2), ""),
    "image that is a dataset": Case(matches(lambda opened: opened.__setitem__("x", np.zeros(5))), MATCH, (0, 2), ""),
    "link to itself": Case(matches(set_link(PAIR, h5py.SoftLink(f"/{PAIR}"))), MATCH, (1, 2), ""),
    "link to another file": Case(matches(set_link("a.png", h5py.ExternalLink("/etc/passwd", "/"))), MATCH, (1, 2), ""),
}
