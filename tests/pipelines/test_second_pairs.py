"""The pairs of the second try."""

import dataclasses
from pathlib import Path

import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.photos.crawl import Crawl
from lgbatch.pipelines import second_pairs
from lgbatch.reconstruction.results import Doubtful, Unregistered
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef
from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import photo
from tests.pipelines.test_second_try import result
from tests.workspace.helpers import random_features


def first_try(folder: Path, names: list[str], left_out: list[str]) -> second_pairs.FirstTry:
    """All pairs of these photos, without matches."""
    workspace = Workspace(folder)
    with FeatureStore(workspace.features, append={}) as store:
        for seed, name in enumerate(names):
            photo(folder, name, (8, 6))
            store.write(name, random_features(seed))
    with MatchStore(workspace.matches, append={}):
        pass
    write_pairs(workspace.pairs, exhaustive(names))
    refs = [ImageRef(name, folder / name) for name in names]
    done = dataclasses.replace(result(5, 20, 100), weakly_joined=tuple(left_out))
    return second_pairs.FirstTry(workspace, folder, Crawl(refs, []), names, workspace.pairs, done)


def test_pairs_that_are_verified_support_those_that_are_not(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    first = first_try(tmp_path, names, ["4.jpg"])
    verified = {frozenset(("0.jpg", "4.jpg")): 90, frozenset(("0.jpg", "1.jpg")): 80, frozenset(("1.jpg", "2.jpg")): 70}
    tried, support = second_pairs.worthwhile(first, ["4.jpg"], verified, 1.0)
    assert tried == [("1.jpg", "4.jpg"), ("2.jpg", "4.jpg"), ("3.jpg", "4.jpg")]
    assert support == [("1.jpg", "2.jpg")]  # photo 0 is in no pair that is tried
    tried, support = second_pairs.worthwhile(first, ["4.jpg"], verified, 0.2)
    assert len(tried) == 2 and ("3.jpg", "4.jpg") in tried and not support  # the nearest in order is one of them
    assert second_pairs.worthwhile(first, ["4.jpg"], verified, 0.0) == ([], [])


def test_the_number_of_pairs_per_photo_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_pairs, "_PARTNERS", 2)
    first = first_try(tmp_path, [f"{i}.jpg" for i in range(6)], ["0.jpg"])
    verified = {frozenset(pair): 50 for pair in exhaustive(list(first.names)) if "0.jpg" not in pair}
    tried, support = second_pairs.worthwhile(first, ["0.jpg"], verified, 1.0)
    assert len(tried) == 2 and support == [(tried[0].b, tried[1].b)]


def test_only_photos_with_a_chance_are_tried_again() -> None:
    causes = ["failed", "no other image", "masked", "few keypoints", "no matches", "other model"]
    unregistered = tuple(Unregistered(f"{cause}.jpg", cause, "") for cause in causes)
    done = dataclasses.replace(
        result(5, 20, 100),
        unregistered=unregistered,
        weakly_joined=("weak.jpg", "gone.jpg"),
        doubtful=(Doubtful(0, ["doubtful.jpg"], 28),),
    )
    names = [*(photo.name for photo in unregistered), "weak.jpg", "fine.jpg", "doubtful.jpg"]
    first = second_pairs.FirstTry(Workspace(Path()), Path(), None, names, Path(), done)
    assert first.left_out() == ["doubtful.jpg", "few keypoints.jpg", "no matches.jpg", "other model.jpg", "weak.jpg"]


def test_two_photos_get_a_second_try(tmp_path: Path) -> None:
    first = first_try(tmp_path, ["0.jpg", "1.jpg"], ["0.jpg", "1.jpg"])
    assert second_pairs.worthwhile(first, ["0.jpg", "1.jpg"], {}, 0.75) == ([("0.jpg", "1.jpg")], [])


def test_the_pairs_are_chosen_anew_if_photos_or_the_first_model_change(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    first = first_try(tmp_path, names, ["4.jpg"])
    first.workspace.second.root.mkdir()
    pycolmap.Database.open(first.workspace.database).close()
    settings = Settings(second_try=1.0)
    pairs, replaced = second_pairs.choose_second_pairs(first, ["4.jpg"], settings)
    assert pairs == replaced == [(name, "4.jpg") for name in names[:4]]
    fewer = dataclasses.replace(first, names=names[1:])
    assert second_pairs.choose_second_pairs(fewer, ["4.jpg"], settings)[1] == [(name, "4.jpg") for name in names[1:4]]
    assert second_pairs.choose_second_pairs(fewer, ["1.jpg"], settings)[1] == [("1.jpg", n) for n in names[2:]]
