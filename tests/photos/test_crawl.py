"""The crawl finds each photo once, under one name, in one order."""

import os
import sys
from pathlib import Path

import pytest

from lgbatch.errors import InputError
from lgbatch.photos.crawl import SUFFIXES, crawl, name_problem


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(folder: Path) -> list[str]:
    found = crawl(folder)
    assert [folder / image.name for image in found.images] == [image.path for image in found.images]
    return [image.name for image in found.images]


def test_finds_every_suffix_in_any_case_at_any_depth_sorted_by_code_point(tmp_path: Path) -> None:
    wanted = [f"a/{suffix}/p.{suffix}" for suffix in SUFFIXES] + [f"{s}.{s.upper()}" for s in SUFFIXES]
    wanted += ["deep/er/my photo 1.JPG", "B.jpg", "10.jpg", "9.jpg", "ä 日本.jpg"]
    touch(tmp_path, *wanted, "notes.txt", "jpg", "p.jpg.bak", "p.gif", "a/jpg.d/readme")
    assert names(tmp_path) == sorted(wanted)


def test_hidden_files_and_folders_are_skipped_but_the_given_folder_may_be_hidden(tmp_path: Path) -> None:
    folder = tmp_path / ".photos"
    touch(folder, "a.jpg", ".b.jpg", ".thumbs/c.jpg", "d/.e/f.jpg", ".jpg")
    assert names(folder) == ["a.jpg"]


def test_the_real_name_wins_over_links(tmp_path: Path) -> None:
    touch(tmp_path, "z/p.jpg")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "z/p.jpg")
    (tmp_path / "b").symlink_to(tmp_path / "z", target_is_directory=True)
    assert names(tmp_path) == ["z/p.jpg"]


def test_of_several_links_to_what_lies_outside_the_first_name_wins(tmp_path: Path) -> None:
    touch(tmp_path, "outside/p.jpg", "outside/sub/q.jpg", "photos/own.jpg")
    for link, target in {
        "b": "outside",
        "a": "outside/sub",
        "c.jpg": "outside/p.jpg",
        "b.jpg": "outside/p.jpg",
    }.items():
        (tmp_path / "photos" / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "photos") == ["a/q.jpg", "b.jpg", "own.jpg"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/p.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "x.jpg").symlink_to(tmp_path / "y.jpg")
    (tmp_path / "y.jpg").symlink_to(tmp_path / "x.jpg")
    found = crawl(tmp_path)
    assert [image.name for image in found.images] == ["a/p.jpg"]
    assert [failure.name for failure in found.failures] == ["x.jpg", "y.jpg"]


def test_a_link_as_the_folder_itself(tmp_path: Path) -> None:
    touch(tmp_path, "real/p.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert names(tmp_path / "link") == ["p.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_what_cannot_be_used_is_named_and_does_not_end_the_run(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg", "new\nline.jpg", "tab\t.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9.jpg")).write_bytes(b"x")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = crawl(tmp_path)
    assert [image.name for image in found.images] == ["good.jpg"]
    reasons = {failure.name: failure.reason for failure in found.failures}
    assert list(reasons) == ["gone.jpg", r"latin\udce9.jpg", r"new\nline.jpg", "pipe.jpg", r"tab\t.jpg"]
    assert "leads nowhere" in reasons["gone.jpg"]
    assert "UTF-8" in reasons[r"latin\udce9.jpg"]
    assert "control character" in reasons[r"new\nline.jpg"]
    assert reasons["pipe.jpg"] == "not a regular file"
    assert all(failure.stage == "crawl" for failure in found.failures)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_link_with_a_good_name_rescues_a_file_with_a_bad_one(tmp_path: Path) -> None:
    touch(tmp_path, "bad\n.jpg")
    (tmp_path / "good.jpg").symlink_to(tmp_path / "bad\n.jpg")
    assert names(tmp_path) == ["good.jpg"]
    assert crawl(tmp_path).failures == []


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "ok/a.jpg", "locked/b.jpg")
    scandir = os.scandir  # chmod would not lock out root.

    def refuse(path: str) -> "os._ScandirIterator[str]":
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = crawl(tmp_path)
    assert [image.name for image in found.images] == ["ok/a.jpg"]
    assert [(f.name, f.reason) for f in found.failures] == [("locked/", "the folder cannot be read: Permission denied")]
    with pytest.raises(InputError, match=r"cannot read the folder .*locked: Permission denied"):
        crawl(tmp_path / "locked")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing", "cannot open the photo folder .*missing: No such file or directory"),
        ("a.jpg", "a.jpg is a photo: give its folder"),
        ("a.txt", "a.txt is a file, not a folder of photos"),
        (
            "empty",
            "no photos in .*empty or its subfolders .looked for jpg, jpeg, png, tif, tiff, webp, bmp, jp2.",
        ),
        ("a.jpg/b", "cannot open the photo folder .*: Not a directory"),
        ("nul\0", "cannot open the photo folder"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path, target: str, message: str) -> None:
    touch(tmp_path, "a.jpg", "a.txt", "empty/readme.txt")
    with pytest.raises(InputError, match=message) as caught:
        crawl(tmp_path / target)
    assert "\n" not in str(caught.value)


def test_when_no_photo_is_usable_the_first_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"gone.jpg: the link leads nowhere"):
        crawl(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "b/my photo 1.JPG", "ä\u3000日.jpg", "#1.jpg", " a.jpg", "a\u2028.jpg"])
def test_names_that_can_be_stored(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", "a\n.jpg", "a\r", "a\tb", "\0", "\x7f", "a\x85", "\udce9.jpg"])
def test_names_that_cannot_be_stored(name: str) -> None:
    assert name_problem(name)
