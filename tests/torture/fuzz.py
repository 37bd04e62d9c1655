"""Fuzz one reader for some seconds: python fuzz.py TARGET SECONDS SEED FOLDER

Valid files are flipped, cut, spliced and overwritten; only the documented exceptions may come out, within bounds of
time and memory. Prints what was done as JSON. Each input lies in FOLDER/input before it is read, so that it is known
what a crash of this process was about; what went wrong otherwise is kept as FOLDER/wrong-N.
"""

import collections
import json
import resource
import shutil
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lgbatch.config import Settings
from lgbatch.crawl import crawl
from lgbatch.decode import decode
from lgbatch.errors import InputError, ItemError, StoreError
from lgbatch.evaluate import evaluate, read_strecha
from lgbatch.pairs import read_pairs, write_pairs
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import ImageRef, Pair

LONGEST = 5
"""Seconds that an input of some kilobytes may take."""
MEMORY = 6 << 30
NAMES = ["a.jpg", "day 1/b.jpg", "c.jpg"]
RNG = np.random.default_rng(0)


class Target(NamedTuple):
    seeds: Callable[[Path], list[bytes]]
    """Valid files; they may use a folder."""
    read: Callable[[Path], object]
    allowed: tuple[type[Exception], ...]
    mend: Callable[[bytes], bytes] = bytes
    """Applied to what was made, so that it comes further than the first checksum."""


def photos(suffix: str) -> Callable[[Path], list[bytes]]:
    picture = cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
    kinds = [picture, picture[..., 0]]
    if suffix in (".png", ".tif", ".jp2"):
        kinds += [picture.astype(np.uint16) * 257, np.dstack([picture, picture[..., 0]])]
    return lambda folder: [cv2.imencode(suffix, kind)[1].tobytes() for kind in kinds]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def stores(match: bool) -> Callable[[Path], list[bytes]]:
    """In hloc's layout, as the oldest and the newest HDF5 writes it, and compressed, which is checked the least."""

    def make(folder: Path) -> list[bytes]:
        found = []
        for version, options in ("earliest", {}), ("v108", {}), ("latest", {"compression": "gzip"}):
            path = folder / f"seed-{version}"
            with h5py.File(path, "w", libver=version) as file:
                for name in NAMES:
                    arrays = {
                        "keypoints": RNG.random((9, 2), np.float32),
                        "scores": RNG.random(9, np.float32),
                        "descriptors": RNG.random((4, 9)).astype(np.float16),
                        "image_size": np.array([64, 48]),
                    }
                    group = name
                    if match:
                        group = f"{NAMES[0]}/{name.replace('/', '-')}"
                        arrays = {"matches0": np.arange(9), "matching_scores0": RNG.random(9, np.float32)}
                    for what, array in arrays.items():
                        file.create_dataset(f"{group}/{what}", data=array, **options)
            found.append(path.read_bytes())
        return found

    return make


def read_features(path: Path) -> None:
    with FeatureStore(path) as store:
        for name in store.names():
            for use in store.count, store.keypoints, store.image_size, store.read:
                try:
                    use(name)
                except (KeyError, ItemError, StoreError):
                    continue


def read_matches(path: Path) -> None:
    with MatchStore(path) as store:
        for pair in [*store.pairs(NAMES), Pair(NAMES[1], NAMES[0]), Pair(NAMES[1], NAMES[2])]:
            try:
                if pair in store:
                    store.read(pair)
            except (KeyError, ItemError, StoreError):
                continue


def camera_file(path: Path) -> None:
    shutil.copy(path, path.parent / "x.camera")
    read_strecha(path.parent)


def crawl_list(path: Path) -> None:
    """Names of photos, one a line, as files."""
    folder = path.parent / "names"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for line in path.read_bytes().split(b"\n")[:20]:
        name = line.replace(b"/", b"-").replace(b"\0", b"")[:250]
        if name not in (b"", b".", b".."):
            Path(bytes(folder).decode() + "/" + name.decode("utf-8", "surrogateescape")).touch()
    crawl(folder)


def pairs_seeds(folder: Path) -> list[bytes]:
    write_pairs(folder / "seed", [Pair("a.jpg", "b.jpg"), Pair("my photo.jpg", "写真/b.jpg"), Pair("#c", "d")])
    return [(folder / "seed").read_bytes(), b"# comment\r\na b\r\n", "\ufeffa b\n".encode()]


def models(folder: Path) -> list[bytes]:
    """COLMAP models, their files one after the other."""
    import pycolmap

    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=1, num_points3D=10)
    pycolmap.synthesize_dataset(options).write(str(folder))
    parts = [(folder / f"{name}.bin").read_bytes() for name in MODEL_FILES]
    return [b"".join(struct.pack("<I", len(part)) + part for part in parts)]


MODEL_FILES = ("cameras", "frames", "images", "points3D", "rigs")


def read_model(path: Path) -> None:
    data, at = path.read_bytes(), 0
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        length = int.from_bytes(data[at : at + 4], "little")
        (folder / f"{name}.bin").write_bytes(data[at + 4 : at + 4 + length])
        at += 4 + length
    evaluate(folder, {})


TARGETS = {
    **{
        suffix: Target(photos(suffix), lambda path: decode(ImageRef("x", path), 32), (ItemError,))
        for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp", ".jp2")
    },
    "png": Target(photos(".png"), lambda path: decode(ImageRef("x", path), 32), (ItemError,), with_checksums),
    "crawl": Target(lambda f: [b"a.jpg\n\xff.png\nb/../c.TIF\n", "é.jpg\n𝕊.png".encode()], crawl_list, (InputError,)),
    "pairs": Target(pairs_seeds, read_pairs, (InputError,)),
    "features": Target(stores(False), read_features, (StoreError,)),
    "matches": Target(stores(True), read_matches, (StoreError,)),
    "config": Target(
        lambda f: [
            b'max_keypoints = 2048\npairing = "sequential"\nfilter_threshold = 0.1\n# x\n',
            b"[a]\nb = [1, 2]\n",
        ],
        Settings.load,
        (InputError,),
    ),
    "cameras": Target(
        lambda f: [b"1 0 0\n0 1 0\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n64 48\n"], camera_file, (InputError,)
    ),
    "model": Target(models, read_model, (InputError,)),
}

_NUMBERS = [struct.pack(form, value) for form in ("<I", ">I", "<Q", "<H") for value in (0, 1, 0x7FFF, 0xFFFF)]
_NUMBERS += [b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"nan", b"1e999", b"-1"]
_CHANGE = st.tuples(
    st.sampled_from(["flip", "flip", "set", "cut", "splice", "insert", "drop", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**16),
    st.one_of(st.sampled_from(_NUMBERS), st.binary(max_size=8)),
)


def changed(data: bytes, other: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, place, number, piece in changes:
        at = int(place * len(data))
        size = number % 64
        if kind == "flip":
            data = data[:at] + bytes(b ^ (1 << number % 8) for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "splice":
            data = data[:at] + other[number % (len(other) + 1) :][: len(data)]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "drop":
            data = data[:at] + data[at + size :]
        else:
            data = data[:at] + data[at : at + size] * (1 + number % 50) + data[at + size :]
    return data


def main(name: str, seconds: float, number: int, folder: Path) -> None:
    target = TARGETS[name]
    seeds = target.seeds(folder)
    path, end = folder / "input", time.monotonic() + seconds
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: dict[str, str] = {}

    def fail(what: str) -> None:
        if what not in wrong:
            shutil.copy(path, folder / f"wrong-{len(wrong)}")
            wrong[what] = f"wrong-{len(wrong)}"

    def once(first: bytes, second: bytes, changes: list[tuple[str, float, int, bytes]]) -> None:
        if time.monotonic() > end:
            return
        path.write_bytes(target.mend(changed(first, second, changes)))
        start = time.monotonic()
        signal.alarm(60)  # the end of this process, when it hangs
        try:
            target.read(path)
            outcomes["read"] += 1
        except target.allowed as error:
            outcomes[type(error).__name__] += 1
            if "\n" in str(error):
                fail(f"more than one line: {str(error)[:200]}")
        except Exception as error:
            fail(f"{type(error).__name__}: {str(error)[:200]}")
        signal.alarm(0)
        if time.monotonic() - start > LONGEST:
            fail(f"took {time.monotonic() - start:.0f} s")

    for seed_bytes in seeds:  # untouched, they are read without complaint
        path.write_bytes(seed_bytes)
        if name not in ("crawl", "config", "model"):
            target.read(path)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options = settings(
        max_examples=200, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    while time.monotonic() < end:
        number += 1

        @options
        @seed(number)
        @given(st.sampled_from(seeds), st.sampled_from(seeds), st.lists(_CHANGE, min_size=1, max_size=6))
        def some(first: bytes, second: bytes, changes: list[tuple[str, float, int, bytes]]) -> None:
            once(first, second, changes)

        some()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"inputs": sum(outcomes.values()), "outcomes": outcomes, "wrong": wrong, "memory_mb": memory}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
