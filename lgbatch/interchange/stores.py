"""Features and matches of a workspace in the formats of hloc and COLMAP, and a workspace from theirs."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lgbatch.errors import InputError, ItemError, StoreError, WorkspaceError
from lgbatch.interchange.formats import colmap_text, hloc
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.photos.metadata import read_metadata
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import Provenance
from lgbatch.types import Failure, Features, Matches, Pair, counted
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked

StoreFormat = Literal["hloc", "colmap"]


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    files: tuple[Path, ...]
    images: int
    pairs: int = 0
    left_out_pairs: int = 0
    """Pairs that the format cannot hold, or of images without features."""
    failures: tuple[Failure, ...] = ()

    def format(self) -> str:
        """Describe it in a line, after a line for each failure."""
        lines = [failure.format() for failure in self.failures]
        counts = [counted(self.images, "image")]
        counts += [counted(self.pairs, "pair")] if self.pairs else []
        counts += [f"{counted(self.left_out_pairs, 'pair')} left out"] if self.left_out_pairs else []
        lines.append(f"{', '.join(map(str, self.files))}: {', '.join(counts)}")
        return "\n".join(lines)


def export_stores(workspace: Workspace, folder: Path, kind: StoreFormat) -> Converted:
    """Write the features of a workspace, and its matches if it has any, to `folder` in the format of hloc or COLMAP.

    Raises InputError if the format cannot hold them, StoreError if they cannot be read, and WorkspaceError if the
    files cannot be written.
    """
    if folder.resolve() == workspace.root.resolve():
        raise InputError(f"{folder} is the workspace itself: give another folder for the converted files")
    with _writing(folder), FeatureStore(workspace.features) as features:
        listed = 0
        if kind == "hloc":
            files = [folder / "features.h5"]
            images = hloc.write_features(features, files[0])
        else:
            files = [folder]
            images = colmap_text.write_features(features, folder)
        pairs: list[Pair] = []
        if workspace.matches.is_file():
            with MatchStore(workspace.matches) as matches:
                listed = sum(1 for _ in matches.groups())
                if kind == "hloc":
                    pairs = hloc.write_matches(matches, features, folder / "matches.h5")
                    write_pairs(folder / "pairs.txt", pairs)
                    files += [folder / "matches.h5", folder / "pairs.txt"]
                else:
                    pairs = colmap_text.write_matches(matches, features, folder / colmap_text.MATCHES)
                    listed = len(pairs)  # those without matches have no place in the list
    return Converted(tuple(files), images, len(pairs), listed - len(pairs))


def import_stores(
    source: Path, workspace: Workspace, kind: StoreFormat, *, photos: Path, matches: Path | None, extractor: str | None
) -> Converted:
    """Write features.h5, and matches.h5 and pairs.txt if there are matches, from files of hloc or of COLMAP's.

    `source` is hloc's file of features or the folder of COLMAP's text files, `matches` hloc's file or COLMAP's list of
    matches (by default matches.txt in the folder), and `photos` the folder of the photos. Provenance records the
    program, and the `extractor` if it is given. Features that cannot be read are failures.

    Raises InputError if there is no input, or the workspace has features, and WorkspaceError and StoreError if a file
    cannot be written.
    """
    if workspace.features.exists() or workspace.matches.exists():
        raise InputError(f"{workspace.root} has features or matches: give a new folder")
    if not photos.is_dir():
        raise InputError(f"there is no folder {photos}: give the folder of the photos with --images")
    given = matches or (source / colmap_text.MATCHES if kind == "colmap" else None)
    matches = given if given and (matches or given.is_file()) else None
    if matches and not matches.is_file():
        raise InputError(f"there is no file {matches}: give the matches with --matches")
    made_by: Provenance = {"made_by": kind, "extractor": "sift" if kind == "colmap" else extractor}
    with _writing(workspace.root), locked(workspace.root):
        failures: list[Failure] = []
        try:
            with FeatureStore(workspace.features, append={k: v for k, v in made_by.items() if v}) as store:
                for name, item in _read_features(source, kind, photos, failures):
                    store.write(name, item)
                store.set_image_folder(photos.resolve())
                images = len(store.names())
            if not images:
                raise InputError(f"no features in {source} belong to a photo in {photos}: compare the names")
            pairs, left_out = _import_matches(matches, workspace, kind) if matches else (0, 0)
        except BaseException:
            for path in workspace.features, workspace.matches:
                path.unlink(missing_ok=True)
            raise
    written = [workspace.features, *([workspace.matches, workspace.pairs] if matches else [])]
    return Converted(tuple(written), images, pairs, left_out, tuple(failures))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Create the folder, and report the errors of the block that are not the user's input."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except ItemError as error:
        raise StoreError(f"{error}: extract it again") from None
    except OSError as error:
        free = shutil.disk_usage(folder).free / 1e9 if folder.is_dir() else 0
        reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise WorkspaceError(f"cannot write to {folder}: {reason} ({free:.3g} GB are free)") from None


def _read_features(
    source: Path, kind: StoreFormat, photos: Path, failures: list[Failure]
) -> Iterator[tuple[str, Features]]:
    """Yield the features of each image; adds those that cannot be read to the failures."""
    if kind == "hloc":
        if not source.is_file():
            raise InputError(f"there is no file {source}: give hloc's file of features")
        with FeatureStore(source) as theirs:
            for name in theirs.names():
                try:
                    if not (photos / name).is_file():
                        raise ItemError(f"has features, but is not in {photos}")
                    yield name, theirs.read(name)
                except ItemError as error:
                    failures.append(Failure("convert", name, str(error)))
        return
    if not source.is_dir():
        raise InputError(f"there is no folder {source}: give the folder of COLMAP's text files")
    for name, path in colmap_text.find_features(source, photos).items():
        try:
            found = read_metadata(photos / name)
            if found is None:
                raise ItemError("the header of the photo cannot be read")
            yield name, colmap_text.read_features(path, found.size)
        except ItemError as error:
            failures.append(Failure("convert", name, str(error)))


def _import_matches(path: Path, workspace: Workspace, kind: StoreFormat) -> tuple[int, int]:
    """Write matches.h5 and pairs.txt. Returns the number of pairs, and of those of images without features."""
    pairs: list[Pair] = []
    left_out = 0
    made_by: Provenance = {"made_by": kind, "matcher": "unknown"}
    with FeatureStore(workspace.features) as features, MatchStore(workspace.matches, append=made_by) as store:
        names = features.names()
        store.separate_twins(names)
        records = {name: features.record(name) for name in names}
        try:
            found = hloc.read_matches(path, names) if kind == "hloc" else colmap_text.read_matches(path)
            for pair, item in _once(found):
                if not records.keys() >= set(pair):
                    left_out += 1
                    continue
                counts = records[pair.a].keypoints, records[pair.b].keypoints
                if len(item.indices) and (item.indices < 0).any() | (item.indices.max(0) >= counts).any():
                    raise InputError(
                        f"{path}: the matches of {' '.join(pair)} are of other features: {counts} keypoints"
                    )
                store.write(pair, item, counts[0], (records[pair.a].version, records[pair.b].version))
                pairs.append(pair)
        except (OSError, KeyError, RuntimeError) as error:
            raise InputError(f"cannot read {path}: {str(error).partition(chr(10))[0]}") from None
    write_pairs(workspace.pairs, pairs)
    return len(pairs), left_out


def _once(found: Iterable[tuple[Pair, Matches]]) -> Iterator[tuple[Pair, Matches]]:
    """Yield each pair once, in one of its orders, with at most one match for each keypoint: that of the best score."""
    seen: set[frozenset[str]] = set()
    for pair, item in found:
        if frozenset(pair) in seen or pair.a == pair.b:
            continue
        seen.add(frozenset(pair))
        rows = np.argsort(-item.scores, kind="stable")
        for column in 0, 1:
            rows = rows[np.sort(np.unique(item.indices[rows, column], return_index=True)[1])]
        rows = rows[np.argsort(item.indices[rows, 0])]
        yield pair, Matches(item.indices[rows], item.scores[rows])
