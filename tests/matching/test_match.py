"""The match stage: what it stores, what it reports as failures, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError, StoreError
from lgbatch.matching.lightglue import Matcher
from lgbatch.matching.match import match
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, Pair
from lgbatch.workspace.folder import Workspace


@pytest.fixture
def workspace(tmp_path: Path, demo_features: Sequence[Features]) -> Workspace:
    """Features of five images: three that overlap, one without keypoints, and one of another part of the scene."""
    workspace = Workspace(tmp_path)
    counts = {"a/1.jpg": (0, 300), "b 2.jpg": (1, 250), "c.jpg": (2, 41), "empty.jpg": (3, 0), "z.jpg": (11, 200)}
    with FeatureStore(workspace.features, append={"test": 1}) as store:
        for name, (image, count) in counts.items():
            full, rows = demo_features[image], slice(0, count)
            store.write(
                name, Features(full.keypoints[rows], full.scores[rows], full.descriptors[rows], full.image_size)
            )
    return workspace


@pytest.mark.weights
def test_every_pair_is_stored_or_reported_as_a_failure(models: Path, workspace: Workspace) -> None:
    text = "a/1.jpg\tb 2.jpg\nb 2.jpg\ta/1.jpg\na/1.jpg\tb 2.jpg\nc.jpg c.jpg\nempty.jpg c.jpg\n"
    text += "c.jpg a/1.jpg\ngone.jpg c.jpg\nz.jpg\tb 2.jpg\n"
    workspace.pairs.write_text(text)

    done = match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=Settings())

    assert (done.pairs, done.new, done.duplicates, done.reversed, done.self_pairs) == (5, 4, 1, 1, 1)
    assert [(failure.name, failure.reason) for failure in done.failures] == [
        ("gone.jpg c.jpg", "no features of gone.jpg")
    ]
    with MatchStore(workspace.matches) as store, FeatureStore(workspace.features) as features:
        names = features.names()
        assert set(store.pairs(names)) == {
            Pair("a/1.jpg", "b 2.jpg"),
            Pair("empty.jpg", "c.jpg"),
            Pair("c.jpg", "a/1.jpg"),
            Pair("z.jpg", "b 2.jpg"),
        }
        assert len(store.read(Pair("empty.jpg", "c.jpg")).indices) == 0
        matcher = Matcher(models, Settings())
        for a, b in store.pairs(names):
            if "empty.jpg" in (a, b):
                continue
            first, second = (matcher.encode(features.read(name)) for name in (a, b))
            (alone,) = matcher.match([(first, second)], 4096)
            np.testing.assert_array_equal(store.read(Pair(a, b)).indices, alone.indices)
        forward, backward = (store.read(Pair(*names)) for names in (("a/1.jpg", "b 2.jpg"), ("b 2.jpg", "a/1.jpg")))
        assert len(forward.indices) > 100
        assert {tuple(row) for row in forward.indices} == {tuple(row[::-1]) for row in backward.indices}
    assert done.matched_pairs >= 2
    assert done.matches >= len(forward.indices)


@pytest.mark.weights
def test_a_second_run_matches_nothing_and_does_not_change_the_store(models: Path, workspace: Workspace) -> None:
    write_pairs(workspace.pairs, [Pair("a/1.jpg", "c.jpg"), Pair("a/1.jpg", "b 2.jpg")])
    settings = Settings()
    first = match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=settings)
    before = workspace.matches.read_bytes()
    again = match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=settings)
    assert (first.new, again.new) == (2, 0)
    assert (first.matches, first.matched_pairs) == (again.matches, again.matched_pairs)
    assert workspace.matches.read_bytes() == before
    with pytest.raises(StoreError, match=r"filter_threshold 0\.1 \(now 0\.5\)"):
        match(
            workspace.pairs,
            workspace.features,
            workspace.matches,
            models=models,
            settings=Settings(filter_threshold=0.5),
        )


@pytest.mark.weights
def test_a_pairs_file_may_be_empty_but_must_exist(models: Path, workspace: Workspace) -> None:
    def run() -> int:
        return match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=Settings()).pairs

    with pytest.raises(InputError):
        run()
    workspace.pairs.write_text("")
    assert run() == 0


@pytest.mark.weights
def test_images_that_share_a_name_in_hlocs_layout_are_matched(
    models: Path, tmp_path: Path, demo_features: Sequence[Features]
) -> None:
    workspace, images = Workspace(tmp_path), {"a/b.jpg": 0, "c.jpg": 2, "a-b.jpg": 1}
    expected = {}

    def run(names: Sequence[str]) -> int:
        with FeatureStore(workspace.features, append={}) as store:
            store.write(names[-1], demo_features[images[names[-1]]])
            if names[0] not in store:
                store.write(names[0], demo_features[images[names[0]]])
        pairs = exhaustive(names)
        write_pairs(workspace.pairs, pairs)
        done = match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=Settings())
        assert not done.failures
        with MatchStore(workspace.matches) as store, FeatureStore(workspace.features) as features:
            assert set(store.pairs(names)) == set(pairs)
            for pair in pairs:
                first, second = (matcher.encode(features.read(name)) for name in pair)
                (expected[pair],) = matcher.match([(first, second)], 4096)
                np.testing.assert_array_equal(store.read(pair).indices, expected[pair].indices)
        return done.new

    matcher = Matcher(models, Settings())
    assert run(["a/b.jpg", "c.jpg"]) == 1
    assert run([*images]) == 3  # the first pair again: it was stored under the name that its image shares now
    assert len({len(matches.indices) for matches in expected.values()}) == 3
    assert match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=Settings()).new == 0


def test_pairs_files_of_other_programs_name_the_images(models: Path, workspace: Workspace) -> None:
    with FeatureStore(workspace.features, append={"test": 1}) as store:
        store.set_image_folder(Path("/photos"))
    text = "./a/1.jpg, c.jpg\r\nA\\..\\c.jpg /photos/a/1.jpg\r\n"
    text += "/photos/a/1.jpg\t/other/c.jpg\r\n/photos/a/1.jpg\ta\\1.jpg\r\n"
    workspace.pairs.write_bytes(text.encode("utf-16"))
    done = match(workspace.pairs, workspace.features, workspace.matches, models=models, settings=Settings())
    assert (done.pairs, done.new, done.self_pairs) == (3, 1, 1)
    assert {(failure.name, failure.reason) for failure in done.failures} == {
        ("A\\..\\c.jpg /photos/a/1.jpg", "no features of A\\..\\c.jpg (there is c.jpg)"),
        ("/photos/a/1.jpg /other/c.jpg", "no features of /other/c.jpg (not below the photo folder, /photos)"),
    }
    with MatchStore(workspace.matches) as matches:
        assert matches.pairs(["a/1.jpg", "c.jpg"]) == [("a/1.jpg", "c.jpg")]


def test_features_of_another_extractor_are_refused(tmp_path: Path) -> None:
    workspace, ones = Workspace(tmp_path), np.ones((1, 2), np.float32)
    with FeatureStore(workspace.features, append={"extractor": "aliked-n16"}) as store:
        store.write("a.jpg", Features(ones, ones[:, 0], ones, (8, 6)))
    write_pairs(workspace.pairs, [Pair("a.jpg", "b.jpg")])
    with pytest.raises(InputError, match=r"holds aliked-n16 features: match them with --extractor aliked-n16$"):
        match(workspace.pairs, workspace.features, workspace.matches, models=tmp_path, settings=Settings())


def test_missing_models_are_reported_with_the_export_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run `lgbatch export aliked-n16rot`"):
        Matcher(tmp_path, Settings())
