"""The methods of --pairing, and their unions."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.candidates import RigPlace, exhaustive, sequential
from lgbatch.pairing.evidence.find import Photos, find_candidates
from lgbatch.pairing.methods import EXHAUSTIVE, check_sources, make_pairs, pairs_all, uses_features
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.types import Pair, PairList
from lgbatch.workspace.folder import Workspace
from tests.pairing.helpers import across, two_scenes, write_features


def only_names(names: list[str], rig: dict[str, RigPlace] | None = None) -> Photos:
    return Photos(names, Path("no features"), rig=rig or {})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """60 photos of two scenes, by turns."""
    folder, made = tmp_path_factory.mktemp("photos"), two_scenes(30)
    write_features(folder / "features.h5", made, folder=folder)
    return Photos(sorted(made), folder / "features.h5", vocabulary=folder / "vocabulary.npz", threads=2)


def test_auto_pairs_all_of_a_few_photos(photos: Photos) -> None:
    names = ["a10", "a2", "b/1"]
    assert make_pairs(only_names(names), Settings()) == exhaustive(names)
    assert make_pairs(only_names([]), Settings()) == []
    assert pairs_all(Settings(), EXHAUSTIVE) and not pairs_all(Settings(), EXHAUSTIVE + 1)
    assert not uses_features(Settings(), EXHAUSTIVE) and uses_features(Settings(), EXHAUSTIVE + 1)
    for pairing, uses in {"exhaustive": False, "sequential": False, "spatial": True, "sequential+loops": True}.items():
        assert uses_features(Settings(pairing=pairing), 1000) == uses


def test_auto_pairs_many_photos_that_look_alike_or_follow_each_other(photos: Photos) -> None:
    def candidates() -> PairList:
        return find_candidates(photos, Settings(neighbours=6)).best(6).as_pairs()

    pairs = candidates()
    assert len(pairs) < 60 * 10 and candidates() == pairs
    assert set(sequential(photos.names, 3)) <= set(pairs)
    apart = [pair for pair in pairs if photos.names.index(pair.b) - photos.names.index(pair.a) > 3]
    assert len(apart) > 100 and across(apart) == 0


def test_sequential_with_quadratic_overlap_adds_powers_of_two() -> None:
    names = [f"{i:03}" for i in range(40)]
    pairs = make_pairs(only_names(names), Settings(pairing="sequential", window=5, quadratic_overlap=True))
    assert sorted(pairs) == [(a, b) for a, b in combinations(names, 2) if int(b) - int(a) in {1, 2, 3, 4, 5, 8, 16}]
    assert make_pairs(only_names(names), Settings(pairing="sequential", window=5)) == sequential(names, 5)
    rig = {f"{side}{i}": RigPlace(side, str(i)) for side in "lr" for i in range(9)}
    far = sequential(sorted(rig), 4, rig, quadratic=True)
    assert Pair("l0", "r8") in far and Pair("l0", "l8") in far and Pair("l0", "r5") not in far


def test_retrieval_pairs_photos_that_look_alike(photos: Photos) -> None:
    pairs = make_pairs(photos, Settings(pairing="retrieval", neighbours=5))
    assert across(pairs) == 0 and set(pairs.uses().tolist()) <= set(range(5, 60)) and len(pairs) <= 60 * 5


def test_loops_look_up_every_tenth_photo_of_a_sequence(photos: Photos) -> None:
    pairs = make_pairs(photos, Settings(pairing="loops", neighbours=3))
    tenth = set(photos.names[::10])
    assert across(pairs) == 0 and all({*pair} & tenth for pair in pairs) and 9 <= len(pairs) <= 18
    assert make_pairs(photos, Settings(pairing="retrieval+loops", neighbours=30)) == make_pairs(
        photos, Settings(pairing="retrieval", neighbours=30)
    )


def test_a_union_has_each_pair_once(photos: Photos) -> None:
    parts = [make_pairs(photos, Settings(pairing=name, neighbours=4)) for name in ("sequential", "retrieval")]
    for pairing in "sequential+retrieval", "retrieval+sequential":
        joined = make_pairs(photos, Settings(pairing=pairing, neighbours=4))
        assert joined[: len(parts[0])] == parts[0]
        assert {frozenset(pair) for pair in joined} == {frozenset(pair) for part in parts for pair in part}
        assert len({frozenset(pair) for pair in joined}) == len(joined) < len(parts[0]) + len(parts[1])


def test_spatial_pairs_photos_by_a_file_of_positions(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "positions.txt"
    path.write_text("".join(f"{name} {i % 10} {i // 10 * 3}\n" for i, name in enumerate(photos.names)))
    settings = Settings(pairing="spatial", positions=str(path), neighbours=8, max_distance=2.5)
    check_sources(settings)
    rows = {name: i for i, name in enumerate(photos.names)}
    pairs = [(rows[a], rows[b]) for a, b in make_pairs(photos, settings)]
    assert pairs == [(i, j) for i in range(60) for j in (i + 1, i + 2) if j // 10 == i // 10]
    path.write_text("".join(f"{name} {i} 0\n" for i, name in enumerate(photos.names[:9])))
    make_pairs(photos, settings)
    assert "pairing spatial finds no pairs for 51 of 60 photos without a position" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no photo has a GPS position in its EXIF; give a file with --positions"):
        make_pairs(photos, Settings(pairing="spatial"))


def test_files_that_cannot_be_read_are_reported_before_anything_is_computed(tmp_path: Path) -> None:
    for name, pairing in {"positions": "spatial", "global_descriptors": "retrieval", "pairs_from": "poses"}.items():
        with pytest.raises(InputError, match=str(tmp_path / "none")):
            check_sources(Settings(pairing=pairing, **{name: str(tmp_path / "none")}))
    check_sources(Settings())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pairing": "all"}, "pairing must be one of auto, exhaustive, sequential, spatial, retrieval, loops, poses"),
        ({"pairing": "spatial+"}, "or several joined with +, not 'spatial+'"),
        ({"pairing": "auto+spatial"}, "pairing auto cannot be joined with other methods, as in 'auto+spatial'"),
        ({"pairing": "poses"}, "pairing poses needs pairs_from, the folder of a COLMAP model"),
        ({"neighbours": 0}, "neighbours must be at least 1, not 0"),
    ],
)
def test_invalid_methods_are_reported(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        Settings.load(**changes)


def test_settings_tell_with_which_methods_they_have_an_effect() -> None:
    both = Settings(pairing="sequential+spatial")
    for name in "window", "quadratic_overlap", "neighbours", "max_distance", "positions":
        assert both.disabled_by(name) is None
    assert both.disabled_by("global_descriptors") == both.disabled_by("pairs_from") == "pairing"
    assert Settings(pairing="sequential").disabled_by("neighbours") == "pairing"
    assert Settings().disabled_by("window") == "pairing" and Settings().disabled_by("neighbours") is None


def test_a_method_that_finds_no_pair_is_an_error(tmp_path: Path) -> None:
    write_features(tmp_path / "features.h5", two_scenes(2))
    names = sorted(two_scenes(2))
    (tmp_path / "positions.txt").write_text(f"{names[0]} 1 2\n")
    settings = Settings(pairing="spatial", positions=str(tmp_path / "positions.txt"))
    with pytest.raises(InputError, match="pairing spatial finds no pair of the 4 photos"):
        choose_pairs(Workspace(tmp_path), names, settings, image_folder=None, models=tmp_path)
