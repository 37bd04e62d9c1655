"""The methods of `--pairing`: which pairs of images to match."""

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lgbatch.config import Settings
from lgbatch.pairing.candidates import exhaustive, order_in_folders, sequential
from lgbatch.pairing.evidence.find import Photos, alike, close
from lgbatch.pairing.evidence.global_descriptors import check_global_descriptors
from lgbatch.pairing.evidence.lists import Ranked, union
from lgbatch.pairing.evidence.model import model_pairs, read_model
from lgbatch.pairing.evidence.positions import check_positions
from lgbatch.types import PairList

EXHAUSTIVE = 40
"""Most photos of which auto pairs all."""
_LOOP_PERIOD = 10
"""Every so many photos of a sequence, loops look for others that look like one: as in COLMAP."""


def make_pairs(photos: Photos, settings: Settings) -> PairList:
    """Return the pairs of the methods of the settings, each once. Those of `in_rounds` are not to be had this way.

    Raises InputError if a file of the settings cannot be used, or a method finds nothing to go by.
    """
    chosen = settings.pairing_methods - ({"loops"} if "retrieval" in settings.pairing_methods else frozenset())
    lists = [method(photos, settings) for name, method in _METHODS.items() if name in chosen]
    if len(lists) == 1:
        return lists[0]
    joined = PairList.of(chain.from_iterable(lists))
    first = np.ones(len(joined), np.bool_)
    first[joined.repeats()[0]] = False
    return joined.where(first)


def pairs_all(settings: Settings, photos: int) -> bool:
    """Whether the settings pair each of so many photos with all others."""
    return settings.pairing == "exhaustive" or (settings.pairing == "auto" and photos <= EXHAUSTIVE)


def in_rounds(settings: Settings, photos: int) -> bool:
    """Whether the pairs of so many photos are chosen in rounds."""
    return settings.pairing == "auto" and photos > EXHAUSTIVE


def uses_features(settings: Settings, photos: int) -> bool:
    """Whether the pairs of so many photos depend on more than their names."""
    return not pairs_all(settings, photos) and not settings.pairing_methods <= {"sequential", "poses"}


def check_sources(settings: Settings) -> None:
    """Raise InputError if a file that the pairing needs cannot be read: before hours of extraction."""
    if settings.positions:
        check_positions(Path(settings.positions))
    if settings.global_descriptors:
        check_global_descriptors(Path(settings.global_descriptors))
    if settings.pairs_from:
        read_model(Path(settings.pairs_from))


def source_files(settings: Settings) -> list[Path]:
    """Return the files and folders that the choice of pairs reads."""
    return [
        Path(path)
        for path in (settings.positions, settings.global_descriptors, settings.pairs_from, settings.rig_config)
        if path
    ]


def _sequential(photos: Photos, settings: Settings) -> PairList:
    return PairList.of(sequential(photos.names, settings.window, photos.rig, quadratic=settings.quadratic_overlap))


def _loops(photos: Photos, settings: Settings) -> PairList:
    rows = {name: row for row, name in enumerate(photos.names)}
    sequences = order_in_folders(photos.names, photos.rig)
    queries = sorted(rows[name] for sequence in sequences for name in sequence[::_LOOP_PERIOD])
    return _best(photos, settings, alike(photos, settings, np.array(queries, np.int64)))


def _poses(photos: Photos, settings: Settings) -> PairList:
    return _best(photos, settings, model_pairs(Path(settings.pairs_from), photos.names, settings.neighbours))


def _best(photos: Photos, settings: Settings, ranked: Ranked) -> PairList:
    return union(photos.names, [ranked]).best(settings.neighbours).as_pairs()


_METHODS: Mapping[str, Callable[[Photos, Settings], PairList]] = MappingProxyType(
    {
        "auto": lambda photos, _: exhaustive(photos.names),
        "exhaustive": lambda photos, _: exhaustive(photos.names),
        "sequential": _sequential,
        "spatial": lambda photos, settings: _best(photos, settings, close(photos, settings)),
        "retrieval": lambda photos, settings: _best(photos, settings, alike(photos, settings)),
        "loops": _loops,
        "poses": _poses,
    }
)
