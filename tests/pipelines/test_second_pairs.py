"""The pairs of the second try, and whether its model is better."""

import dataclasses
from pathlib import Path

import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.photos.crawl import Crawl
from lgbatch.pipelines import second_pairs, second_try
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef
from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import photo
from tests.workspace.helpers import random_features


def result(registered: int, verified: int, observations: int) -> Reconstruction:
    models = (Model(registered, 10, observations, 0.5, 3.0),) if registered else ()
    return Reconstruction(
        images=9,
        images_with_keypoints=9,
        matched_pairs=30,
        verified_pairs=verified,
        most_inliers=99,
        models=models,
        seconds_verification=0,
        seconds_mapping=0,
    )


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
    tried, support = second_pairs.worthwhile(first, verified, 1.0)
    assert tried == [("1.jpg", "4.jpg"), ("2.jpg", "4.jpg"), ("3.jpg", "4.jpg")]
    assert support == [("1.jpg", "2.jpg")]  # photo 0 is in no pair that is tried
    tried, support = second_pairs.worthwhile(first, verified, 0.2)
    assert len(tried) == 2 and ("3.jpg", "4.jpg") in tried and not support  # the nearest in order is one of them
    assert second_pairs.worthwhile(first, verified, 0.0) == ([], [])


def test_the_number_of_pairs_per_photo_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_pairs, "_PARTNERS", 2)
    first = first_try(tmp_path, [f"{i}.jpg" for i in range(6)], ["0.jpg"])
    verified = {frozenset(pair): 50 for pair in exhaustive(list(first.names)) if "0.jpg" not in pair}
    tried, support = second_pairs.worthwhile(first, verified, 1.0)
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
    assert first.left_out() == ["doubtful.jpg", "few keypoints.jpg", "no matches.jpg", "weak.jpg"]


def test_two_photos_get_a_second_try(tmp_path: Path) -> None:
    first = first_try(tmp_path, ["0.jpg", "1.jpg"], ["0.jpg", "1.jpg"])
    assert second_pairs.worthwhile(first, {}, 0.75) == ([("0.jpg", "1.jpg")], [])


def test_the_pairs_are_chosen_anew_if_photos_or_the_first_model_change(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    first = first_try(tmp_path, names, ["4.jpg"])
    first.workspace.second.root.mkdir()
    pycolmap.Database.open(first.workspace.database).close()
    settings = Settings(second_try=1.0)
    pairs, replaced = second_pairs.choose_second_pairs(first, settings)
    assert pairs == replaced == [(name, "4.jpg") for name in names[:4]]
    fewer = dataclasses.replace(first, names=names[1:])
    assert second_pairs.choose_second_pairs(fewer, settings)[1] == [(name, "4.jpg") for name in names[1:4]]
    other = dataclasses.replace(fewer, result=dataclasses.replace(first.result, weakly_joined=("1.jpg",)))
    assert second_pairs.choose_second_pairs(other, settings)[1] == [("1.jpg", name) for name in names[2:]]


def test_a_few_pairs_are_tried_to_join_a_smaller_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i}.jpg" for i in range(8)]
    first = first_try(tmp_path, names, [])
    small = tuple(Unregistered(name, "other model", "") for name in names[5:])
    first = dataclasses.replace(first, result=dataclasses.replace(first.result, unregistered=small))
    models = set(names[:5]), set(names[5:])
    pairs = [pair for pair in exhaustive(names) if any(model.issuperset(pair) for model in models)]
    verified = {frozenset(pair): 50 for pair in pairs} | {frozenset(("0.jpg", "5.jpg")): 20}
    tried, support = second_pairs.worthwhile(first, verified, 1.0)
    assert len(tried) == 10 and ("4.jpg", "5.jpg") in tried and ("0.jpg", "5.jpg") not in tried
    assert all(len(models[0].intersection(pair)) == 1 for pair in tried) and len(support) == 10
    monkeypatch.setattr(second_pairs, "_JOINING", 2)
    assert len(second_pairs.worthwhile(first, verified, 1.0)[0]) == 2
    assert len(second_pairs.worthwhile(first, verified, 0.03)[0]) == 1
    weak = dataclasses.replace(first, result=dataclasses.replace(first.result, weakly_joined=("7.jpg",)))
    assert weak.left_out() == ["7.jpg"] and weak.in_smaller_models() == ["5.jpg", "6.jpg"]
    tried, _ = second_pairs.worthwhile(weak, verified, 1.0)
    assert len(tried) == 7 and sum("7.jpg" in pair for pair in tried) == 5


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({}, False),
        ({"registered": 6}, True),
        ({"verified": 21}, True),
        ({"registered": 6, "verified": 19}, True),
        ({"registered": 6, "observations": 99}, False),
        ({"registered": 4, "verified": 30}, False),
        ({"registered": 0, "verified": 30}, False),
    ],
)
def test_what_is_better(change: dict[str, int], better: bool) -> None:
    first = {"registered": 5, "verified": 20, "observations": 100}
    assert second_try._is_better(result(**first | change), result(**first)) == better
    assert second_try._is_better(result(**first), result(0, 20, 0))


def test_one_model_is_better_than_two_and_two_may_grow() -> None:
    def models(*images: int, verified: int = 20) -> Reconstruction:
        others = tuple(Unregistered(f"{i}.jpg", "other model", "") for i in range(sum(images[1:])))
        counted = tuple(Model(count, 10, 100 * count, 0.5, 3.0) for count in images)
        return dataclasses.replace(result(0, verified, 0), models=counted, unregistered=others)

    first = models(8, 6)
    assert second_try._is_better(models(14), first) and not second_try._is_better(first, models(14))
    assert second_try._is_better(models(14, verified=10), first)
    assert second_try._is_better(models(8, 7), first) and second_try._is_better(models(9, 6), first)
    assert not second_try._is_better(models(7, 7, 4), first)  # the largest model has lost a photo
    assert not second_try._is_better(models(9, 4, verified=30), first)
    assert not second_try._is_better(first, first)
    weak = dataclasses.replace(models(14), doubtful=(Doubtful(0, tuple(f"{i}.jpg" for i in range(6)), 20),))
    assert not second_try._is_better(weak, first)  # joined by too little
    shared = dataclasses.replace(first, doubtful=(Doubtful(1, ("in model 0.jpg",), 20),))
    assert not second_try._is_better(first, shared)


def test_doubtful_photos_do_not_make_a_model_better() -> None:
    more = result(7, 20, 120)
    doubtful = (Doubtful(0, ("a.jpg", "b.jpg"), 20), Doubtful(1, ("c.jpg",), 20))
    assert second_try._is_better(more, result(5, 20, 100))
    assert not second_try._is_better(dataclasses.replace(more, doubtful=doubtful), result(5, 20, 100))
    assert second_try._is_better(dataclasses.replace(more, doubtful=doubtful), result(4, 20, 100))
