"""Features that another program extracted are matched, reconstructed from, and told to be of unknown provenance."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.interchange.stores import import_stores
from lgbatch.matching.match import match
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from tests.helpers.stand_in import COUNT, StandIn
from tests.interchange import helpers

NAMES = ("a.png", "x/b.png")


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    """A workspace with a features.h5 as hloc's extraction writes it: half precision, keys of its extractors."""
    with h5py.File(tmp_path / "features.h5", "w", libver="latest") as file:
        for number, name in enumerate(NAMES):
            helpers.photo(tmp_path / "photos" / name)
            item = helpers.features(COUNT, number, 128)
            group = file.create_group(name)
            group.create_dataset("keypoints", data=item.keypoints.astype(np.float16))
            group.create_dataset("keypoint_scores", data=item.scores.astype(np.float16))
            group.create_dataset("descriptors", data=item.descriptors.T.astype(np.float16))
            group.create_dataset("image_size", data=np.array(item.image_size))
            group["keypoints"].attrs["uncertainty"] = 2.0
    write_pairs(tmp_path / "pairs.txt", [Pair(*NAMES)])
    return Workspace(tmp_path)


def test_a_file_of_hloc_is_matched_as_the_extractor_that_is_named(
    files: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    StandIn.use(monkeypatch)
    settings = Settings(extractor="disk")
    done = match(files.pairs, files.features, files.matches, models=files.root, settings=settings)
    assert (done.new, done.matches) == (1, COUNT)
    told = capsys.readouterr().err
    assert "does not record its extractor: its features are matched as those of disk" in told
    with MatchStore(files.matches) as store:
        assert [entry["by"]["matcher"] for entry in store.provenances.values()] == ["disk lightglue"]
    info = json.loads(CliRunner().invoke(cli.app, ["info", str(files.features), "--json"]).stdout)
    assert info["files"][0]["made"][0]["by"] is None


def test_a_converted_file_records_the_extractor_that_is_named(
    files: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    StandIn.use(monkeypatch)
    new = Workspace(tmp_path / "new")
    import_stores(files.features, new, "hloc", photos=tmp_path / "photos", matches=None, extractor="disk")
    with pytest.raises(InputError, match="holds disk features: match them with --extractor disk"):
        match(files.pairs, new.features, new.matches, models=tmp_path, settings=Settings(extractor="xfeat"))
    capsys.readouterr()
    done = match(files.pairs, new.features, new.matches, models=tmp_path, settings=Settings(extractor="disk"))
    assert done.matches == COUNT and "does not record" not in capsys.readouterr().err


def test_converted_matches_are_kept_and_have_one_match_a_keypoint(
    files: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StandIn.use(monkeypatch)
    matches0 = np.full(COUNT, -1, np.int16)
    matches0[[1, 4, 6]] = [7, 0, 7]  # one keypoint of the second image twice: COLMAP takes the better match
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.create_dataset("a.png/x-b.png/matches0", data=matches0)
        scores = np.where(np.arange(COUNT) == 6, 0.9, 0.5).astype(np.float16)
        file.create_dataset("a.png/x-b.png/matching_scores0", data=scores)
    new = Workspace(tmp_path / "new")
    import_stores(
        files.features, new, "hloc", photos=tmp_path / "photos", matches=tmp_path / "theirs.h5", extractor=None
    )
    with MatchStore(new.matches) as store:
        np.testing.assert_array_equal(store.indices(Pair(*NAMES)), [[4, 0], [6, 7]])
    done = match(new.pairs, new.features, new.matches, models=tmp_path, settings=Settings(on_change="keep"))
    assert (done.new, done.matches) == (0, 2)
