"""Items whose recomputation fails stay in the stores, unused. Items of another precision are as good with `auto`."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lgbatch.colmap.import_stores import import_stores
from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.features.extract import Extracted, extract
from lgbatch.matching.match import Matched, match
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, Photo
from lgbatch.workspace.folder import Workspace
from tests.helpers import stand_in
from tests.helpers.synthetic import content

NAMES = ["a.png", "b.png", "c.png"]


class Run:
    """Runs the stages with stand-ins for the networks, which can be made to fail."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.photos, self.workspace = folder / "photos", Workspace(folder / "out")
        self.failing, self.extracted = set[str](), list[str]()
        """Photos whose extraction fails, and those that were extracted."""
        self.matching_fails = False
        self.photos.mkdir()
        for i, name in enumerate(NAMES):
            cv2.imwrite(str(self.photos / name), np.full((48, 64, 3), i, np.uint8))
        write_pairs(folder / "pairs.txt", exhaustive(NAMES))
        self.pairs = folder / "pairs.txt"
        stand_in.StandIn.use(patch)
        self._let_fail(patch)

    def _let_fail(self, patch: pytest.MonkeyPatch) -> None:
        open_extractor, run_extractor = stand_in._Extractor.__init__, stand_in._Extractor.extract
        run_matcher = stand_in._Matcher.match

        def init(extractor: Any, models: Path, settings: Settings, at_once: int) -> None:
            open_extractor(extractor, models, settings, at_once)
            extractor.provenance["max_keypoints"] = settings.max_keypoints

        def run(extractor: Any, photos: Sequence[Photo]) -> list[Features]:
            if any(photo.name in self.failing for photo in photos):
                raise RuntimeError("the model failed")
            self.extracted += [photo.name for photo in photos]
            return run_extractor(extractor, photos)

        def match_pairs(*arguments: Any) -> Any:
            if self.matching_fails:
                raise RuntimeError("the model failed")
            return run_matcher(*arguments)

        patch.setattr(stand_in._Extractor, "__init__", init)
        patch.setattr(stand_in._Extractor, "extract", run)
        patch.setattr(stand_in._Matcher, "match", match_pairs)
        self.stages = SimpleNamespace(**vars(stand_in._Matcher.stages))
        patch.setattr(stand_in._Matcher, "stages", self.stages)

    def extract(self, *, retry_failed: bool = False, **changes: Any) -> Extracted:
        settings = Settings.load(**changes)
        return extract(
            self.photos, self.workspace.features, models=Path(), settings=settings, retry_failed=retry_failed
        )

    def match(self, **changes: Any) -> Matched:
        settings = Settings.load(**changes)
        return match(self.pairs, self.workspace.features, self.workspace.matches, models=Path(), settings=settings)

    def imported(self, **changes: Any) -> tuple[list[str], int]:
        """Import all photos; return the names of the images in the database, and its number of pairs."""
        import_stores(self.workspace, self.photos, NAMES, self.pairs, Settings.load(**changes))
        database = content(self.workspace.database)
        return sorted(database["images"]), len(database["matches"])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def limits(run: Run) -> dict[str, int]:
    """The max_keypoints that each image of the store was extracted with."""
    with FeatureStore(run.workspace.features) as store:
        return {
            name: store.provenances[store.record(name).fingerprint]["by"]["max_keypoints"] for name in store.names()
        }


def test_features_whose_recomputation_fails_stay_and_are_not_used(run: Run) -> None:
    run.extract(max_keypoints=100)
    run.match(max_keypoints=100)
    assert run.imported(max_keypoints=100) == (NAMES, 3)
    run.failing = {"b.png"}
    done = run.extract(max_keypoints=200, on_change="recompute")
    assert [failure.name for failure in done.failures] == ["b.png"]
    assert limits(run) == {"a.png": 200, "b.png": 100, "c.png": 200}
    assert run.match(max_keypoints=200).skipped_pairs == 2
    assert run.imported(max_keypoints=200) == (["a.png", "c.png"], 1)


def test_a_failed_recomputation_is_not_refused_and_not_repeated_until_it_is_retried(run: Run) -> None:
    run.extract(max_keypoints=100)
    run.failing = {"b.png"}
    run.extract(max_keypoints=200, on_change="recompute")
    cv2.imwrite(str(run.photos / "d.png"), np.zeros((48, 64, 3), np.uint8))
    run.failing, run.extracted = set(), []
    done = run.extract(max_keypoints=200)
    assert (run.extracted, [failure.name for failure in done.failures]) == (["d.png"], ["b.png"])
    with pytest.raises(StoreError, match="1 photo was extracted with max_keypoints 100"):
        run.extract(max_keypoints=200, retry_failed=True)
    run.extract(max_keypoints=200, retry_failed=True, on_change="recompute")
    assert set(limits(run).values()) == {200} and run.extracted == ["d.png", "b.png"]


def test_features_of_a_photo_that_was_replaced_by_a_bad_one_are_not_used(run: Run) -> None:
    run.extract()
    run.match()
    (run.photos / "b.png").write_bytes(b"not a photo")
    for on_change in "recompute", "refuse":
        done = run.extract(on_change=on_change)
        assert [failure.name for failure in done.failures] == ["b.png"]
        assert sorted(limits(run)) == NAMES
        assert run.match(on_change=on_change).skipped_pairs == 2
        assert run.imported() == (["a.png", "c.png"], 1)


def test_after_a_recomputation_that_failed_the_old_settings_need_none(run: Run) -> None:
    run.extract(max_keypoints=100)
    run.failing = set(NAMES)
    run.extract(max_keypoints=200, on_change="recompute")
    run.failing, run.extracted = set(), []
    assert run.extract(max_keypoints=100).failures == ()
    assert run.extracted == [] and set(limits(run).values()) == {100}


def test_matches_whose_recomputation_fails_stay_and_are_not_used(run: Run) -> None:
    run.extract()
    run.match(filter_threshold=0.1)
    run.matching_fails = True
    done = run.match(filter_threshold=0.2, on_change="recompute")
    assert (done.skipped_pairs, len(done.failures)) == (3, 3)
    assert run.imported() == (NAMES, 0)
    run.matching_fails = False
    again = run.match(filter_threshold=0.1)
    assert (again.new, again.matched_pairs, again.failures) == (0, 3, ())
    assert run.imported() == (NAMES, 3)


def test_with_auto_precision_items_of_another_kind_of_processor_are_kept(run: Run) -> None:
    run.extract()
    write_pairs(run.pairs, exhaustive(NAMES[:2]))
    run.stages.precision = "int8"
    run.match(precision="auto")
    write_pairs(run.pairs, exhaustive(NAMES))
    run.stages.precision = "fp32"
    with pytest.raises(StoreError, match=r"1 pair was matched with precision int8 \(now fp32\)"):
        run.match(precision="fp32")
    with pytest.raises(StoreError, match="precision int8"):
        run.match(precision="auto", filter_threshold=0.3)
    assert run.match(precision="auto").new == 2
    with MatchStore(run.workspace.matches) as store:
        assert {entry["by"]["precision"]: entry["items"] for entry in store.provenances.values()} == {
            "int8": 1,
            "fp32": 2,
        }
