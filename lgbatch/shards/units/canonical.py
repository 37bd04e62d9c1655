"""Stores in canonical form: items in the order of their names, written at once. The same items are the same bytes.

HDF5 keeps no times in them, and a store that is written in one commit has no unused space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import Provenance
from lgbatch.types import Pair


def write_features(source: Path, target: Path, base: Provenance, image_folder: Path) -> int:
    """Write the images of a store of `base` provenance into a new file. Returns their number."""
    with FeatureStore(source) as old, FeatureStore(target, append=base) as new:
        new.set_image_folder(image_folder)
        made = old.provenances
        names = old.names()
        for name in names:
            record = old.record(name)
            with new.changed_provenance(**made[record.fingerprint]["by"]):
                new.write(name, old.read(name), record.photo)
    return len(names)


def write_matches(
    source: Path,
    target: Path,
    base: Provenance,
    pairs: Sequence[Pair],
    keypoints: Mapping[str, int],
    twins: Sequence[str],
) -> int:
    """Write those of the pairs that a store of `base` provenance has into a new file, with their geometries.

    `keypoints` is the number of keypoints of each image, `twins` are the images to keep apart (see matches.py). Returns
    the number of pairs.
    """
    with MatchStore(source) as old, MatchStore(target, append=base) as new:
        new.separate_twins(twins)
        stored = sorted(old.stored_order(pair) for pair in pairs if pair in old)
        for pair in stored:
            record = old.record(pair)
            assert record is not None
            new.write(pair, old.read(pair), keypoints[pair.a], record.versions)
            if geometry := old.geometry(pair):
                new.set_geometry(pair, geometry)
    return len(stored)
