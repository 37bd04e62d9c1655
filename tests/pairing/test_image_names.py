"""Pairs files name images in their own ways; the images are found, or the failure tells the reason."""

import unicodedata
from pathlib import Path

import pytest

from lgbatch.errors import InputError
from lgbatch.pairing.image_names import read_image_pairs, resolve_pairs
from lgbatch.pairing.pairs_file import PairsFile, read_pairs
from lgbatch.types import Failure, Pair, PairList

NFD = unicodedata.normalize("NFD", "Äpfel/é 1.jpg")
NFC = unicodedata.normalize("NFC", NFD)
IMAGES = ["a.jpg", "b.jpg", "left/1.jpg", "IMG 2.JPG", NFD]
FOLDER = Path("/data/photos")


def find(*names: str, images: list[str] = IMAGES, folder: Path | None = FOLDER) -> list[str]:
    """The images that names stand for, or the reason why there is none. Each is paired with b.jpg."""
    result = []
    for name in names:
        resolved = resolve_pairs(PairsFile(PairList.of([Pair(name, "b.jpg")]), 0, 0, 0, []), [*images, "b.jpg"], folder)
        result.append(resolved.pairs[0].a if resolved.pairs else resolved.unknown[0].reason)
    return result


def read(folder: Path, content: str | bytes, encoding: str = "utf-8") -> PairsFile:
    path = folder / "pairs.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_image_pairs(path, IMAGES, FOLDER)


def test_exact_names_are_returned_as_they_are() -> None:
    exact = PairsFile(PairList.of([Pair("a.jpg", NFD), Pair("left/1.jpg", "b.jpg")]), 1, 2, 3, [])
    assert resolve_pairs(exact, IMAGES, FOLDER) is exact


def test_exact_names_win() -> None:
    images = ["a\\1.jpg", "a/1.jpg", NFD, NFC, "./x.jpg", "x.jpg", "b.jpg,", "/data/photos/x.jpg"]
    assert find(*images, images=images) == images


def test_other_spellings_of_a_name() -> None:
    assert find("./a.jpg", ".\\left\\1.jpg", "left//1.jpg", "./left/./1.jpg", "left\\1.jpg") == [
        "a.jpg",
        *["left/1.jpg"] * 4,
    ]
    assert find(NFC, f"./{NFC}", NFC.replace("/", "\\"), f"/data/photos/{NFC}") == [NFD] * 4
    assert find(NFD, images=[NFC]) == [NFC]


def test_absolute_paths_below_the_photo_folder() -> None:
    assert find("/data/photos/left/1.jpg", "/data//photos/./a.jpg") == ["left/1.jpg", "a.jpg"]
    assert find("/data/a.jpg", "/data/photos2/a.jpg") == [
        "no features of /data/a.jpg (not below the photo folder, /data/photos)",
        "no features of /data/photos2/a.jpg (not below the photo folder, /data/photos)",
    ]
    windows = Path("C:/Größe/photos")
    assert find("C:\\Größe\\photos\\left\\1.jpg", "C:/Gro\u0308ße/photos/a.jpg", folder=windows) == [
        "left/1.jpg",
        "a.jpg",
    ]
    assert find("C:\\a.jpg", folder=windows) == [
        "no features of C:\\a.jpg (not below the photo folder, C:/Größe/photos)"
    ]
    assert find("/x/a.jpg", folder=None) == ["no features of /x/a.jpg (not below the photo folder, which is unknown)"]


def test_the_reason_names_the_image_that_may_be_meant() -> None:
    assert find("none.jpg", "photos/left/1.jpg", "img 2.jpg", "../a.jpg", "a.jpg/", "/data/photos/A.jpg") == [
        "no features of none.jpg",
        "no features of photos/left/1.jpg (there is left/1.jpg)",
        "no features of img 2.jpg (there is IMG 2.JPG)",
        "no features of ../a.jpg (there is a.jpg)",
        "no features of a.jpg/ (there is a.jpg)",
        "no features of /data/photos/A.jpg (there is a.jpg)",
    ]


def test_a_name_of_two_images_is_unknown() -> None:
    composed, decomposed, mixed = "\u1e69.jpg", "s\u0323\u0307.jpg", "\u1e63\u0307.jpg"
    assert find(mixed, images=[composed, decomposed]) == [
        f"no features of {mixed} (2 images have this name, in different Unicode normalisations)"
    ]
    assert find(decomposed, images=[composed, decomposed]) == [decomposed]


def test_pairs_that_become_equal_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = "a.jpg b.jpg\n./a.jpg ./b.jpg\n./b.jpg a.jpg\n./a.jpg a.jpg\na.jpg b.jpg\nb.jpg b.jpg\nx.jpg ./b.jpg\n"
    assert read(tmp_path, lines) == PairsFile(
        [Pair("a.jpg", "b.jpg")], 2, 1, 2, [], [Failure("match", "x.jpg ./b.jpg", "no features of x.jpg")]
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_in_unicode_encodings_with_windows_line_endings(tmp_path: Path, encoding: str) -> None:
    parsed = read(tmp_path, f"a.jpg b.jpg\r\n\r\n# é\r\n{NFC}\tIMG 2.JPG\r\n", encoding)
    assert parsed == PairsFile([Pair("a.jpg", "b.jpg"), Pair(NFD, "IMG 2.JPG")], 0, 0, 0, [])


def test_lists_in_other_encodings_are_told_by_their_encoding(tmp_path: Path) -> None:
    big_endian = b"\xfe\xff" + "a.jpg b.jpg\n".encode("utf-16-be")
    assert read(tmp_path, big_endian).pairs == [("a.jpg", "b.jpg")]
    (unmarked, *_) = read(tmp_path, "a.jpg b.jpg\r\n", "utf-16-le").failures
    assert unmarked.reason == "NUL characters, as in UTF-16 without a byte order mark: save the file as UTF-8"
    (latin,) = read(tmp_path, "Äpfel.jpg a.jpg\n", "latin-1").failures
    assert latin.reason == "not valid UTF-8: save the file as UTF-8"
    assert read(tmp_path, b"\xff\xfea\0 \0b").unknown != []  # ends within a character


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg\tIMG 2.JPG",
        "a.jpg, IMG 2.JPG",
        "a.jpg,IMG 2.JPG",
        'a.jpg;"IMG 2.JPG"',
        '"a.jpg" "IMG 2.JPG"',
        ' "a.jpg" , "IMG 2.JPG" ',
        '"./a.jpg","/data/photos/IMG 2.JPG"',
    ],
)
def test_tables(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, f"{line}\r\n") == PairsFile([Pair("a.jpg", "IMG 2.JPG")], 0, 0, 0, [])


def test_tables_of_short_names(tmp_path: Path) -> None:
    parsed = read(
        tmp_path, 'a.jpg, b.jpg\na.jpg,left/1.jpg\n"b.jpg" "left/1.jpg"\na.jpg, gone.jpg\na.jpg,\n,\n"a.jpg\n'
    )
    assert parsed.pairs == [("a.jpg", "b.jpg"), ("a.jpg", "left/1.jpg"), ("b.jpg", "left/1.jpg")]
    assert [failure.reason for failure in parsed.unknown] == ["no features of gone.jpg"]
    assert [failure.name for failure in parsed.failures] == [f"pairs.txt line {n}" for n in (5, 6, 7)]


def test_pairs_with_an_image_that_failed_are_skipped() -> None:
    pairs = [Pair("./bad.jpg", "a.jpg"), Pair("bad.jpg", "none.jpg"), Pair("b.jpg", "none.jpg"), Pair("a.jpg", "b.jpg")]
    parsed = resolve_pairs(PairsFile(PairList.of(pairs), 0, 0, 0, []), IMAGES, FOLDER, ["bad.jpg", "a.jpg"])
    assert (parsed.pairs, parsed.skipped) == ([Pair("a.jpg", "b.jpg")], 2)
    assert [failure.name for failure in parsed.unknown] == ["b.jpg none.jpg"]


def test_a_photo_folder_that_is_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "photos").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    path = tmp_path / "pairs.txt"
    path.write_text(f"{tmp_path}/home/photos/a.jpg b.jpg\n")
    real = (tmp_path / "disk" / "photos").resolve()
    assert read_image_pairs(path, IMAGES, real).pairs == [("a.jpg", "b.jpg")]
    assert read_pairs(path).pairs == [(f"{tmp_path}/home/photos/a.jpg", "b.jpg")]


def test_a_missing_file_raises_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read pairs"):
        read_image_pairs(tmp_path / "none.txt", IMAGES, None)
