"""Bad features.h5 and matches.h5: how each is made, which command meets it, and how it is to end."""

import os
import shutil

import h5py
import numpy as np

from tests.torture.making import (
    EXTRACT,
    FIRST,
    MATCH,
    PAIRS,
    RANDOM,
    RUN,
    Case,
    after,
    at,
    cut,
    dataset,
    file,
    folder,
    gone,
    linked,
    replaced,
    store,
)

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
    "no keypoints": Case(store("features.h5", lambda f: f.__delitem__(KEYPOINTS)), MATCH, (1, 2), ""),
    "no descriptors": Case(store("features.h5", lambda f: f.__delitem__(DESCRIPTORS)), MATCH, (1, 2), ""),
    "no scores": Case(store("features.h5", lambda f: f.__delitem__(SCORES)), MATCH, (1, 2), ""),
    "no size": Case(store("features.h5", lambda f: f.__delitem__(SIZE)), MATCH, 1, FIRST),
    "NaN keypoints": Case(store("features.h5", replaced(KEYPOINTS, at(0, np.nan))), MATCH, 1, FIRST),
    "infinite keypoints": Case(store("features.h5", replaced(KEYPOINTS, at(0, np.inf))), MATCH, 1, FIRST),
    "NaN descriptors": Case(store("features.h5", replaced(DESCRIPTORS, at(0, np.nan))), MATCH, 0, "pairs       3"),
    "keypoints of three columns": Case(
        store("features.h5", replaced(KEYPOINTS, lambda k: np.c_[k, k[:, 0]])), MATCH, (1, 2), ""
    ),
    "keypoints in a row": Case(store("features.h5", replaced(KEYPOINTS, np.ravel)), MATCH, (1, 2), ""),
    "one keypoint, a number": Case(store("features.h5", replaced(KEYPOINTS, lambda k: k[0, 0])), MATCH, 1, FIRST),
    "keypoints that are text": Case(store("features.h5", dataset(FIRST, "keypoints", [["a", "b"]])), MATCH, (1, 2), ""),
    "keypoints that are complex": Case(store("features.h5", replaced(KEYPOINTS, lambda k: k + 1j)), MATCH, (1, 2), ""),
    "keypoints of an own type": Case(
        store("features.h5", dataset(FIRST, "keypoints", np.zeros(5, [("x", "f4"), ("y", "f4")]))), MATCH, (1, 2), ""
    ),
    "keypoints that are a group": Case(
        store("features.h5", lambda f: (f.__delitem__(KEYPOINTS), f.create_group(KEYPOINTS))), MATCH, (1, 2), ""
    ),
    "empty keypoints": Case(store("features.h5", dataset(FIRST, "keypoints", h5py.Empty("f4"))), MATCH, 1, FIRST),
    "ten billion keypoints": Case(
        store("features.h5", dataset(FIRST, "keypoints", None, shape=(10**10, 2), dtype="f4", chunks=(1024, 2))),
        MATCH,
        (1, 2),
        "",
    ),
    "fewer descriptors": Case(store("features.h5", replaced(DESCRIPTORS, lambda d: d[:, :-1])), MATCH, 1, FIRST),
    "descriptors of another length": Case(
        store("features.h5", replaced(DESCRIPTORS, lambda d: d[:8])), MATCH, (1, 2), ""
    ),
    "size of three": Case(store("features.h5", dataset(FIRST, "image_size", [1, 2, 3])), MATCH, 1, FIRST),
    "size of nothing": Case(store("features.h5", replaced(SIZE, at(slice(None), 0))), MATCH, 1, FIRST),
    "another's size": Case(store("features.h5", replaced(SIZE, lambda s: s + 1)), MATCH, 2, FIRST),
    "link to itself": Case(store("features.h5", linked("loop", h5py.SoftLink("/loop"))), MATCH, (0, 2), ""),
    "link to the root": Case(store("features.h5", linked("round", h5py.SoftLink("/"))), MATCH, (0, 2), ""),
    "hard link to the root": Case(store("features.h5", lambda f: f.__setitem__("round", f["/"])), MATCH, (0, 2), ""),
    "link to another file": Case(
        store("features.h5", linked(FIRST, h5py.ExternalLink("/etc/passwd", "/"))), MATCH, (1, 2), ""
    ),
    "link to a file that hangs": Case(
        after(lambda f: os.mkfifo(f / "pipe"), store("features.h5", linked(FIRST, h5py.ExternalLink("../pipe", "/")))),
        MATCH,
        (1, 2),
        "",
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
        (1, 2),
        "",
    ),
    "unknown compression": Case(
        store("features.h5", lambda f: (f.__delitem__(SCORES), unreadable_filter(f, SCORES))), MATCH, (1, 2), ""
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
        store("matches.h5", replaced(MATCHES0, lambda m: np.r_[m, np.arange(500, 900)])), MATCH, (1, 2), ""
    ),
    "floats": Case(store("matches.h5", replaced(MATCHES0, lambda m: m + 0.5)), MATCH, 2, FIRST),
    "text": Case(store("matches.h5", dataset(PAIR, "matches0", ["a", "b"])), MATCH, (1, 2), ""),
    "two columns": Case(store("matches.h5", replaced(MATCHES0, lambda m: np.c_[m, m])), MATCH, (1, 2), ""),
    "a number": Case(store("matches.h5", replaced(MATCHES0, lambda m: m[0])), MATCH, (1, 2), ""),
    "no scores": Case(store("matches.h5", lambda f: f.__delitem__(MATCHING)), MATCH, (1, 2), ""),
    "fewer scores": Case(store("matches.h5", replaced(MATCHING, lambda s: s[:1])), MATCH, (1, 2), ""),
    "no matches": Case(store("matches.h5", lambda f: f.__delitem__(MATCHES0)), MATCH, (1, 2), ""),
    "ten billion": Case(
        store("matches.h5", dataset(PAIR, "matches0", None, shape=(10**10,), dtype="i4", chunks=(1024,))),
        MATCH,
        (1, 2),
        "",
    ),
    "a pair that is data": Case(
        store("matches.h5", lambda f: (f.__delitem__(PAIR), f.__setitem__(PAIR, np.zeros(5)))), MATCH, (1, 2), ""
    ),
    "an image that is data": Case(store("matches.h5", lambda f: f.__setitem__("x", np.zeros(5))), MATCH, (0, 2), ""),
    "link to itself": Case(store("matches.h5", linked(PAIR, h5py.SoftLink(f"/{PAIR}"))), MATCH, (1, 2), ""),
    "link to another file": Case(
        store("matches.h5", linked("a.png", h5py.ExternalLink("/etc/passwd", "/"))), MATCH, (1, 2), ""
    ),
}
