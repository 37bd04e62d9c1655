"""The summary of a run: exit status, photos that are not registered, COLMAP's warnings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.features.extract import Extracted
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.results import Model, Reconstruction, Unregistered, Warned
from lgbatch.types import Failure
from lgbatch.workspace.rerun import Rerun

RERUN = Rerun(settings=Settings(), photos=Path("photos"), workspace=Path("out"))
LEFT_OUT = tuple(Unregistered(f"{i}.jpg", "no matches", "no pair with matches, of 700 keypoints") for i in range(23))
DONE = Reconstruction(
    images=30,
    images_with_keypoints=30,
    matched_pairs=40,
    verified_pairs=21,
    most_inliers=500,
    most_keypoints=2048,
    longest_side=4000,
    models=(Model(7, 100, 300, 0.5, 3.0),),
    unregistered=LEFT_OUT,
    warnings=(Warned("no focal length prior", 1), Warned("image 3 is small", 4)),
    seconds_verification=1.0,
    seconds_mapping=1.0,
)


def summary_of(result: Reconstruction) -> Summary:
    summary = Summary(RERUN.settings)
    summary.add_reconstruction(result, RERUN)
    return summary


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (replace(DONE, images=7, unregistered=()), 0),
        (DONE, 1),
        (replace(DONE, images=7, unregistered=(Unregistered("x.jpg", "failed", "failed (extract): torn"),)), 1),
        (replace(DONE, models=()), 1),
    ],
)
def test_the_exit_status_tells_whether_all_photos_are_registered(result: Reconstruction, status: int) -> None:
    assert summary_of(result).exit_status == status


def test_ten_photos_that_are_not_registered_are_printed_and_all_are_in_the_json(tmp_path: Path) -> None:
    summary = summary_of(DONE)
    lines = [line for line in summary.format().splitlines() if "not registered" in line]
    assert len(lines) == 11
    assert lines[0] == "not registered: 0.jpg: no pair with matches, of 700 keypoints"
    assert lines[-1] == "... and 13 more photos not registered: --json lists all"
    summary.write(tmp_path / "summary.json")
    values = json.loads((tmp_path / "summary.json").read_text())
    assert [photo["name"] for photo in values["unregistered"]] == [photo.name for photo in LEFT_OUT]
    assert values["unregistered"][0]["cause"] == "no matches" and "--max-keypoints 4096" in values["advice"]


def test_a_photo_that_failed_in_this_run_is_printed_once() -> None:
    summary = Summary(RERUN.settings)
    failure = Failure("extract", "torn.jpg", "the file is truncated")
    summary.add_extracted(Extracted(images=8, new=7, keypoints=9, failures=(failure,)))
    failed = Unregistered("torn.jpg", "failed", "failed (extract): the file is truncated")
    summary.add_reconstruction(replace(DONE, images=7, unregistered=(failed,)), RERUN)
    assert summary.format().count("torn.jpg") == 1 and summary.as_dict()["unregistered"][0]["name"] == "torn.jpg"


def test_warnings_of_colmap_are_printed_with_their_number() -> None:
    lines = summary_of(DONE).format().splitlines()
    assert "COLMAP      no focal length prior" in lines and "COLMAP      image 3 is small (4 times)" in lines
    many = replace(DONE, warnings=tuple(Warned("x" * i, 1) for i in range(9)))
    assert sum(line.startswith("COLMAP") for line in summary_of(many).format().splitlines()) == 5
