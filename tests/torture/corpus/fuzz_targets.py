"""The fuzzed readers: valid files of each kind, how to read them, and the exceptions that they may raise."""

import os
import pickle
import shutil
import signal
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
from lgbatch.reconstruction.evaluation.evaluate import evaluate
from lgbatch.reconstruction.evaluation.formats.strecha import read_strecha
from lgbatch.reconstruction.evaluation.read_truth import read_truth
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Pair

NAMES = ["a.jpg", "day 1/b.jpg", "c.jpg"]
RNG = np.random.default_rng(0)
CHILD_LIMIT = 3
"""Seconds that COLMAP may take to read a model of some kilobytes."""


class Target(NamedTuple):
    """A reader to fuzz."""

    seeds: Callable[[Path], list[bytes]]
    """Returns valid files; may use a scratch folder."""
    read: Callable[[Path], object]
    allowed: tuple[type[Exception], ...]
    repair: Callable[[bytes], bytes] = bytes
    """Applied to each mutated file, so that the reader gets past its checksums."""


def photos(suffix: str) -> Callable[[Path], list[bytes]]:
    """Colour and grey photos; for formats that have them also 16 bits and an alpha channel."""
    colour = cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
    images = [colour, colour[..., 0]]
    if suffix in (".png", ".tif", ".jp2"):
        images += [colour.astype(np.uint16) * 257, np.dstack([colour, colour[..., 0]])]
    return lambda folder: [cv2.imencode(suffix, image)[1].tobytes() for image in images]


def with_checksums(data: bytes) -> bytes:
    """Recompute the checksums of a PNG's chunks."""
    out, start = bytearray(data), 8
    while start + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, start)
        end = start + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[start + 4 : end]))
        start = end + 4
    return bytes(out)


def image_arrays(name: str) -> dict[str, np.ndarray]:
    """hloc's datasets of an image."""
    arrays = {
        "keypoints": RNG.random((9, 2), np.float32),
        "scores": RNG.random(9, np.float32),
        "descriptors": RNG.random((4, 9)).astype(np.float16),
        "image_size": np.array([64, 48]),
        "orientation": np.array([6]),
    }
    return {f"{name}/{key}": array for key, array in arrays.items()}


def pair_arrays(name: str) -> dict[str, np.ndarray]:
    """hloc's datasets of the pair of the first image and `name`."""
    group = f"{NAMES[0]}/{name.replace('/', '-')}"
    return {f"{group}/matches0": np.arange(9), f"{group}/matching_scores0": RNG.random(9, np.float32)}


def stores(arrays_of: Callable[[str], dict[str, np.ndarray]]) -> Callable[[Path], list[bytes]]:
    """Stores in hloc's layout in the oldest, a newer and the newest HDF5 format; the newest is compressed."""

    def seeds(folder: Path) -> list[bytes]:
        files = []
        for version, options in ("earliest", {}), ("v108", {}), ("latest", {"compression": "gzip"}):
            path = folder / f"seed-{version}"
            with h5py.File(path, "w", libver=version) as file:
                for name in NAMES:
                    for dataset, array in arrays_of(name).items():
                        file.create_dataset(dataset, data=array, **options)
                        file[dataset].parent.attrs["geometry"] = np.arange(9, dtype=np.uint8)
            files.append(path.read_bytes())
        return files

    return seeds


def read_features(path: Path) -> None:
    """Call all readers on all images. Errors of single images are fine."""
    with FeatureStore(path) as store:
        for name in store.names():
            for method in store.count, store.keypoints, store.image_size, store.orientation, store.read:
                try:
                    method(name)
                except (KeyError, ItemError, StoreError):
                    continue


def read_matches(path: Path) -> None:
    """Read all pairs, in both directions. Errors of single pairs are fine."""
    with MatchStore(path) as store:
        for pair in [*store.pairs(NAMES), Pair(NAMES[1], NAMES[0]), Pair(NAMES[1], NAMES[2])]:
            try:
                if pair in store:
                    store.read(pair)
                    store.geometry(pair)
            except (KeyError, ItemError, StoreError):
                continue


def read_camera_file(path: Path) -> None:
    shutil.copy(path, path.parent / "x.camera")
    read_strecha(path.parent)


def crawl_names(path: Path) -> None:
    """Create an empty file for each line, which is its name, and crawl their folder."""
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


def truths(folder: Path) -> list[bytes]:
    """A transforms.json and a trajectory."""
    rows = b"[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]"
    frame = b'{"file_path": "a.jpg", "transform_matrix": ' + rows + b', "fl_x": 500.5, "k1": -0.01}'
    return [
        b'{"w": 640, "h": 480, "cx": 320, "frames": [' + frame + b"]}",
        b"# t\n1.5 1 2 3 0 0 0 1\n2 1 2 3 0 1 0 0\n",
    ]


MODEL_FILES = ("cameras", "frames", "images", "points3D", "rigs")


def models(folder: Path) -> list[bytes]:
    """A COLMAP model as one file: the length and the bytes of each of its files."""
    import pycolmap

    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=1, num_points3D=10)
    pycolmap.synthesize_dataset(options).write(str(folder))
    parts = [(folder / f"{name}.bin").read_bytes() for name in MODEL_FILES]
    return [b"".join(struct.pack("<I", len(part)) + part for part in parts)]


def read_model(path: Path) -> None:
    """Split a file of `models` and evaluate the model."""
    data, start = path.read_bytes(), 0
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        length = int.from_bytes(data[start : start + 4], "little")
        (folder / f"{name}.bin").write_bytes(data[start + 4 : start + 4 + length])
        start += 4 + length
    in_child(lambda: evaluate(folder, {}))


def in_child(work: Callable[[], object]) -> None:
    """Do the work in a child process, and raise what it raises. COLMAP may loop over a count: that is a refusal."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(CHILD_LIMIT)
        try:
            work()
            outcome = None
        except Exception as error:
            outcome = error
        os.write(writer, pickle.dumps(outcome))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123  a descriptor
        answer = pipe.read()
    number = os.WTERMSIG(os.waitpid(child, 0)[1])
    if number == signal.SIGALRM:
        raise InputError(f"COLMAP reads for more than {CHILD_LIMIT} s")
    if number:
        os.kill(os.getpid(), number)  # a crash of the reader
    if error := pickle.loads(answer):
        raise error


TARGETS = {
    **{
        suffix: Target(photos(suffix), lambda path: decode(ImageRef("x", path), 32), (ItemError,))
        for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp", ".jp2")
    },
    "png": Target(photos(".png"), lambda path: decode(ImageRef("x", path), 32), (ItemError,), with_checksums),
    "crawl": Target(
        lambda f: [b"a.jpg\n\xff.png\nb/../c.TIF\n", "é.jpg\n写真.png".encode()], crawl_names, (InputError,)
    ),
    "pairs": Target(pairs_seeds, read_pairs, (InputError,)),
    "features": Target(stores(image_arrays), read_features, (StoreError,)),
    "matches": Target(stores(pair_arrays), read_matches, (StoreError,)),
    "config": Target(
        lambda f: [
            b'max_keypoints = 2048\npairing = "sequential"\nfilter_threshold = 0.1\n# x\n',
            b"[a]\nb = [1, 2]\n",
        ],
        Settings.load,
        (InputError,),
    ),
    "cameras": Target(
        lambda f: [b"1 0 0\n0 1 0\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n64 48\n"], read_camera_file, (InputError,)
    ),
    "model": Target(models, read_model, (InputError,)),
    "truth": Target(truths, read_truth, (InputError,)),
}
