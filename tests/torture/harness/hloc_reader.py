"""hloc's functions that read features and matches, rewritten from the description of its layout."""

from pathlib import Path

import h5py
import numpy as np


def get_keypoints(path: Path, name: str) -> tuple[np.ndarray, float | None]:
    """Keypoints (N, 2) of an image, and their uncertainty in pixels."""
    with h5py.File(path, "r", libver="latest") as file:
        dataset = file[name]["keypoints"]
        return dataset[()], dataset.attrs.get("uncertainty")


def get_features(path: Path, name: str) -> dict[str, np.ndarray]:
    """All datasets of an image."""
    with h5py.File(path, "r", libver="latest") as file:
        return {key: dataset[()] for key, dataset in file[name].items()}


def get_matches(path: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Matches (K, 2) and scores (K,) of a pair, columns in the order of the arguments. Raises ValueError if absent."""
    with h5py.File(path, "r", libver="latest") as file:
        a, b = first.replace("/", "-"), second.replace("/", "-")
        for key, reverse in (f"{a}/{b}", False), (f"{b}/{a}", True):
            if key in file:
                matches0 = file[key]["matches0"][()]
                scores = file[key]["matching_scores0"][()]
                rows = np.where(matches0 != -1)[0]
                pairs = np.stack([rows, matches0[rows]], axis=-1)
                return (np.flip(pairs, -1) if reverse else pairs), scores[rows]
    raise ValueError(f"no pair {first} {second}")


def list_images(path: Path) -> list[str]:
    """Names of all images: the parents of datasets."""
    names = set()

    def visit(_: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            names.add(node.parent.name.strip("/"))

    with h5py.File(path, "r", libver="latest") as file:
        file.visititems(visit)
    return sorted(names)
