"""Features and matches as text, as COLMAP's feature_importer and matches_importer read them.

NAME.txt of the photo NAME: a line "N 128", then for each keypoint x, y, scale, orientation and 128 numbers of 0..255.
The centre of the top-left pixel is (0.5, 0.5). The list of matches has for each pair a line "NAME1 NAME2", a line of
two indices for each match, and an empty line. Source: https://colmap.github.io/tutorial.html
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lgbatch.colmap.stored import StoredFeatures
from lgbatch.errors import InputError, ItemError
from lgbatch.storage.durable import replace_synced
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, Matches, Pair

MATCHES = "matches.txt"
_DIMENSION = 128
_SCALE = 512  # of normalised SIFT descriptors, in COLMAP


def write_features(features: FeatureStore, folder: Path) -> int:
    """Write a file for each image. Returns the number of images. Raises ItemError if one is damaged.

    COLMAP stores SIFT descriptors only, in 8 bits: those of other extractors are written as 0, for their matches are
    imported, too. Scales are 1, and orientations 0.
    """
    names = features.names()
    placed = StoredFeatures(features, names)
    for name in names:
        item, keypoints = features.read(name), placed.keypoints(name) + np.float32(0.5)
        descriptors = np.zeros((len(keypoints), _DIMENSION), np.uint8)
        if item.scales is not None and item.descriptors.shape[1] == _DIMENSION:
            descriptors = np.clip(np.rint(item.descriptors * _SCALE), 0, 255).astype(np.uint8)
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(keypoints.tolist(), descriptors.tolist(), strict=True)
        lines = [f"{len(keypoints)} {_DIMENSION}"]
        lines += [f"{x!r} {y!r} 1 0 {' '.join(map(str, values))}" for (x, y), values in rows]
        replace_synced(path, "\n".join([*lines, ""]).encode())
    return len(names)


def write_matches(matches: MatchStore, features: FeatureStore, path: Path) -> list[Pair]:
    """Write the matches of all pairs with any, and return these pairs. Raises InputError if a name has spaces."""
    written = []

    def lines() -> Iterator[bytes]:
        for pair in matches.pairs(features.names()):
            indices = matches.indices(pair)
            if not len(indices):
                continue
            if spaced := next((name for name in pair if len(name.split()) != 1), None):
                raise InputError(f"COLMAP's list of matches ends names at spaces: rename {spaced}")
            written.append(pair)
            rows = "".join(f"{a} {b}\n" for a, b in indices.tolist())
            yield f"{pair.a} {pair.b}\n{rows}\n".encode()

    replace_synced(path, lines())
    return written


def find_features(folder: Path, photos: Path) -> dict[str, Path]:
    """The files of features below a folder by image name: those NAME.txt of which NAME is a photo."""
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.txt"))}
    return {name: path for name, path in files.items() if (photos / name).is_file()}


def read_features(path: Path, size: tuple[int, int]) -> Features:
    """Read the features of a photo of `size` (width, height), in their order, with scores of 1.

    Raises ItemError if the file is not as COLMAP's.
    """
    try:
        with path.open(encoding="utf-8") as file:
            count, dimension = map(int, file.readline().split())
            values = np.array(file.read().split(), np.float32).reshape(count, 4 + dimension)
    except (OSError, ValueError):
        raise ItemError(f'cannot read {path}: expected a line "N 128", and N lines of 132 numbers') from None
    norms = np.linalg.norm(values[:, 4:], axis=1, keepdims=True)
    return Features(
        keypoints=values[:, :2] - np.float32(0.5),
        scores=np.ones(count, np.float32),
        descriptors=values[:, 4:] / np.maximum(norms, 1e-9),
        image_size=size,
        scales=values[:, 2].copy(),
        oris=values[:, 3].copy(),
    )


def read_matches(path: Path) -> Iterator[tuple[Pair, Matches]]:
    """Yield the pairs of a list of matches, raw or inliers. Raises InputError, naming the line, if it is no list."""
    try:
        blocks = path.read_text(encoding="utf-8").split("\n\n")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read {path}: expected a list of matches, as COLMAP imports") from None
    for lines in filter(None, (block.strip().splitlines() for block in blocks)):
        names = lines[0].split()
        try:
            indices = np.array([line.split() for line in lines[1:]], np.int32).reshape(-1, 2)
            pair = Pair(*names)
        except (ValueError, TypeError):
            raise InputError(f'{path}: expected "NAME1 NAME2", then two indices a line, not {lines[0][:60]}') from None
        indices = indices[np.argsort(indices[:, 0], kind="stable")]
        yield pair, Matches(indices, np.ones(len(indices), np.float32))
