"""The readers that are fuzzed: valid files of each kind, how they are read, and what may come out."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import InputError, ItemError, StoreError
from lgbatch.pairing.pairs_file import read_pairs, write_pairs
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.reconstruction.evaluate import evaluate
from lgbatch.reconstruction.truth import read_strecha
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Pair

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
    "crawl": Target(
        lambda f: [b"a.jpg\n\xff.png\nb/../c.TIF\n", "é.jpg\n写真.png".encode()], crawl_list, (InputError,)
    ),
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
