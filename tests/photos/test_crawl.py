"""crawl() lists each photo once, under one name, in a fixed order."""

import os
import sys
from pathlib import Path

import pytest

from lgbatch.errors import InputError
from lgbatch.photos import formats
from lgbatch.photos.crawl import crawl
from lgbatch.photos.formats import SUFFIXES
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.types import name_problem


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(folder: Path) -> list[str]:
    images = crawl(folder).images
    assert [folder / image.name for image in images] == [image.path for image in images]
    return [image.name for image in images]


def test_lists_every_suffix_in_any_case_at_any_depth_sorted_by_code_point(tmp_path: Path) -> None:
    photos = [f"a/{suffix}/p.{suffix}" for suffix in SUFFIXES] + [f"{s}.{s.upper()}" for s in SUFFIXES]
    photos += ["deep/er/my photo 1.JPG", "B.jpg", "10.jpg", "9.jpg", "ä 日本.jpg"]
    touch(tmp_path, *photos, "notes.txt", "jpg", "p.jpg.bak", "p.gif", "a/jpg.d/readme")
    assert names(tmp_path) == sorted(photos)


def test_hidden_files_and_folders_are_skipped_but_the_photo_folder_may_be_hidden(tmp_path: Path) -> None:
    folder = tmp_path / ".photos"
    touch(folder, "a.jpg", ".b.jpg", ".thumbs/c.jpg", "d/.e/f.jpg", ".jpg")
    assert names(folder) == ["a.jpg"]


def test_the_real_path_takes_precedence_over_links(tmp_path: Path) -> None:
    touch(tmp_path, "z/p.jpg")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "z/p.jpg")
    (tmp_path / "b").symlink_to(tmp_path / "z", target_is_directory=True)
    assert names(tmp_path) == ["z/p.jpg"]


def test_of_several_links_to_an_outside_file_the_first_name_wins(tmp_path: Path) -> None:
    touch(tmp_path, "outside/p.jpg", "outside/sub/q.jpg", "photos/own.jpg")
    for link, target in {
        "b": "outside",
        "a": "outside/sub",
        "c.jpg": "outside/p.jpg",
        "b.jpg": "outside/p.jpg",
    }.items():
        (tmp_path / "photos" / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "photos") == ["a/q.jpg", "b.jpg", "own.jpg"]


def test_link_cycles_terminate(tmp_path: Path) -> None:
    touch(tmp_path, "a/p.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "x.jpg").symlink_to(tmp_path / "y.jpg")
    (tmp_path / "y.jpg").symlink_to(tmp_path / "x.jpg")
    result = crawl(tmp_path)
    assert [image.name for image in result.images] == ["a/p.jpg"]
    assert [failure.name for failure in result.failures] == ["x.jpg", "y.jpg"]


def test_the_photo_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/p.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert names(tmp_path / "link") == ["p.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems reject these names")
def test_unusable_files_are_failures_and_do_not_end_the_run(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg", "new\nline.jpg", "tab\t.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9.jpg")).write_bytes(b"x")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    result = crawl(tmp_path)
    assert [image.name for image in result.images] == ["good.jpg"]
    reasons = {failure.name: failure.reason for failure in result.failures}
    assert list(reasons) == ["gone.jpg", r"latin\udce9.jpg", r"new\nline.jpg", "pipe.jpg", r"tab\t.jpg"]
    assert "broken link" in reasons["gone.jpg"]
    assert "UTF-8" in reasons[r"latin\udce9.jpg"]
    assert "control character" in reasons[r"new\nline.jpg"]
    assert reasons["pipe.jpg"] == "not a regular file"
    assert all(failure.stage == "crawl" for failure in result.failures)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems reject these names")
def test_a_link_with_a_valid_name_makes_a_file_with_an_invalid_name_usable(tmp_path: Path) -> None:
    touch(tmp_path, "bad\n.jpg")
    (tmp_path / "good.jpg").symlink_to(tmp_path / "bad\n.jpg")
    assert names(tmp_path) == ["good.jpg"]
    assert crawl(tmp_path).failures == []


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "ok/a.jpg", "locked/b.jpg")
    scandir = os.scandir  # chmod does not keep root out.

    def deny_locked(path: str) -> "os._ScandirIterator[str]":
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny_locked)
    result = crawl(tmp_path)
    assert [image.name for image in result.images] == ["ok/a.jpg"]
    assert [(f.name, f.reason) for f in result.failures] == [
        ("locked/", "the folder cannot be read: Permission denied")
    ]
    with pytest.raises(InputError, match=r"cannot read the folder .*locked: Permission denied"):
        crawl(tmp_path / "locked")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing", "cannot open the photo folder .*missing: No such file or directory"),
        ("a.jpg", "a.jpg is a photo: give its folder"),
        ("a.txt", "a.txt is a file: give the folder of the photos"),
        (
            "empty",
            "no photos in .*empty or its subfolders .looked for jpg, jpeg, jpe, jfif, mpo, png, tif, tiff, webp,",
        ),
        ("a.jpg/b", "cannot open the photo folder .*: Not a directory"),
        ("nul\0", "cannot open the photo folder"),
    ],
)
def test_an_unusable_photo_folder_is_a_one_line_error(tmp_path: Path, target: str, message: str) -> None:
    touch(tmp_path, "a.jpg", "a.txt", "empty/readme.txt")
    with pytest.raises(InputError, match=message) as caught:
        crawl(tmp_path / target)
    assert "\n" not in str(caught.value)


def test_if_no_photo_is_usable_the_error_gives_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"gone.jpg: broken link"):
        crawl(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "b/my photo 1.JPG", "ä\u3000日.jpg", "#1.jpg", " a.jpg", "a\u2028.jpg"])
def test_valid_names_have_no_problem(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", "a\n.jpg", "a\r", "a\tb", "\0", "\x7f", "a\x85", "\udce9.jpg"])
def test_invalid_names_have_a_problem(name: str) -> None:
    assert name_problem(name)


def test_images_that_are_not_read_are_counted_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_extras(monkeypatch)
    touch(tmp_path, "a.jpg", "b.gif", "x/c.GIF", "d.HEIC", "e.CR2", "f.dng", "notes.txt", "video.mp4", ".hidden.gif")
    crawled = crawl(tmp_path)
    assert [image.name for image in crawled.images] == ["a.jpg"]
    assert crawled.left_out == {"gif": 2, "heic": 1, "cr2": 1, "dng": 1}
    assert formats.format_left_out(crawled.left_out) == (
        "1 .cr2, 1 .dng (pip install 'lgbatch[raw]' to read them); 2 .gif (convert to JPEG or PNG); "
        "1 .heic (pip install 'lgbatch[heif]' to read them)"
    )


def test_left_out_images_are_named_once_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_extras(monkeypatch)
    touch(tmp_path, "a.jpg", "b.gif")
    assert crawl_with_masks(tmp_path, "", "").left_out == {"gif": 1}
    assert capsys.readouterr().err == "lgbatch: left out images: 1 .gif (convert to JPEG or PNG)\n"


def test_a_folder_of_unread_images_only_is_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_extras(monkeypatch)
    touch(tmp_path, "a.heic", "b.heic")
    with pytest.raises(InputError, match=r"left out 2 \.heic \(pip install 'lgbatch\[heif\]'"):
        crawl(tmp_path)


def test_thumbnails_of_storage_and_our_own_picture_are_no_photos(tmp_path: Path) -> None:
    folders = ["@eaDir/a.jpg", "__MACOSX", ".thumbnails", "x/@eaDir", "#recycle"]
    touch(tmp_path, "a.jpg", "x/b.jpg", "matches.png", "out/matches.png", *(f"{folder}/t.jpg" for folder in folders))
    assert names(tmp_path) == ["a.jpg", "x/b.jpg"]


def test_a_raw_photo_beside_its_jpeg_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SUFFIXES", (*SUFFIXES, "dng"))
    touch(tmp_path, "1.jpg", "1.dng", "2.dng", "x/1.dng")
    assert names(tmp_path) == ["1.jpg", "2.dng", "x/1.dng"]


def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = ("heic", "heif", "hif", "cr2", "dng")
    monkeypatch.setattr(formats, "SUFFIXES", tuple(suffix for suffix in SUFFIXES if suffix not in extra))
    monkeypatch.setattr(formats, "_LEFT_OUT", formats._LEFT_OUT | {*extra})
