"""Workspaces for the tests of reports, made in a fraction of a second: no networks, blank photos."""

import json
from pathlib import Path

import numpy as np

from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure, Features, Matches
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from tests.helpers.synthetic import Source, import_source, photo, synthetic

HOSTILE = (
    "</script><script>document.title='harmed'</script>.jpg".replace("/", "\u2215"),
    "<img src=x onerror=document.title='harmed'>.jpg",
    "quote\"'`&amp;{{7*7}}.jpg",
    "line\u2028separator \u202egnp.jpg",
)


def write_stores(files: Workspace, source: Source, photos: Path) -> None:
    """Write features.h5, pairs.txt and matches.h5 of a source."""
    with FeatureStore(files.features, append={"extractor": "disk"}) as features:
        features.set_image_folder(photos)
        for name, points in source.points.items():
            ones = np.ones(len(points), np.float32)
            features.write(name, Features(points, ones, np.ones((len(points), 8), np.float32), source.sizes[name]))
        features.commit()
    files.pairs.write_text("".join(f"{a}\t{b}\n" for a, b in source.matches), encoding="utf-8")
    with MatchStore(files.matches, append={"matcher": "lightglue"}) as matches:
        for pair, indices in source.matches.items():
            kept = indices[np.argsort(indices[:, 0], kind="stable")]
            matches.write(pair, Matches(kept, np.ones(len(kept), np.float32)), len(source.points[pair.a]))
        matches.commit()


def finished(folder: Path, images: int = 6, alone: tuple[str, ...] = ()) -> Workspace:
    """A workspace with a model of synthetic images, and photos named `alone` that match none."""
    source = synthetic(folder, images)
    for name in alone:
        photo(folder / "images", name, (64, 48))
        source.points[name] = (np.random.default_rng(1).random((200, 2)) * 48).astype(np.float32)
        source.sizes[name] = (64, 48)
    files = Workspace(folder)
    write_stores(files, source, folder / "images")
    import_source(files.database, source, mode="image")
    reconstruct(files.database, folder / "images", files.sparse)
    return files


def fail(files: Workspace, name: str, reason: str) -> None:
    """Record a photo that failed in extraction."""
    Ledger(files.root).add(Failure("extract", name, reason, "Traceback: <b>bold</b>"))


def facts(page: Path) -> dict[str, object]:
    """The facts beside a page."""
    values: dict[str, object] = json.loads(page.with_suffix(".json").read_text())
    return values
