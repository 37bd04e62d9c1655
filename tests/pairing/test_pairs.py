"""Candidate pairs, and reading and writing of the pairs file."""

import errno
import os
import random
import tempfile
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgbatch.errors import InputError
from lgbatch.pairing.candidates import RigPlace, exhaustive, sequential
from lgbatch.pairing.pairs_file import PairsFile, check_pairs, read_pairs, write_pairs
from lgbatch.pairing.tried_pairs import TriedPair, lists_tried_pairs, write_tried_pairs
from lgbatch.types import Pair


def read(folder: Path, content: bytes) -> PairsFile:
    path = folder / "pairs.txt"
    path.write_bytes(content)
    return read_pairs(path)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
def test_exhaustive_has_every_pair_once_in_order(n: int) -> None:
    names = [f"{i:02}.jpg" for i in range(n)]
    pairs = exhaustive(names)
    assert len(pairs) == len(set(pairs)) == n * (n - 1) // 2
    assert all(a < b for a, b in pairs) and pairs == sorted(pairs)


def test_sequential_pairs_each_image_with_its_followers() -> None:
    names = list("abcd")
    assert sequential(names, 2) == [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert sequential(names, 1) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert sequential(names, 99) == exhaustive(names)
    assert sequential([], 5) == sequential(["a"], 5) == []


def test_sequential_counts_digits_as_numbers() -> None:
    frames = [f"frame{i}.jpg" for i in range(1, 12)]
    assert sequential(sorted(frames), 1) == [Pair(a, b) for a, b in pairwise(frames)]
    order = ["IMG.jpg", "img1_2.png", "IMG1_010.jpg", "img (2).JPG", "IMG (10).jpg", "x\u0662.jpg", "x\uff11\uff10.jpg"]
    for names in order, order[::-1], sorted(order):
        assert sequential(names, 1) == [Pair(a, b) for a, b in pairwise(order)]


def test_sequential_order_is_the_same_for_any_order_of_the_names() -> None:
    names = [
        "A1.jpg",
        "a1.jpg",
        "a01.jpg",
        "a1.png",
        "9" * 5000 + ".jpg",
        "1" + "0" * 5000 + ".jpg",
        "a²",
        "a2",
        "-1",
        ".1",
    ]
    expected = sequential(names, 3)
    for seed in range(10):
        shuffled = random.Random(seed).sample(names, len(names))
        assert sequential(shuffled, 3) == expected
    assert Pair("9" * 5000 + ".jpg", "1" + "0" * 5000 + ".jpg") in expected


def test_folders_are_sequences_of_their_own() -> None:
    names = [f"{side}/{i}.jpg" for side in ("left", "left2", "left10", "left/sub") for i in range(9, 12)] + [
        "8.jpg",
        "9.jpg",
    ]
    pairs = sequential(sorted(names), 1)
    assert pairs[:3] == [("8.jpg", "9.jpg"), ("left/9.jpg", "left/10.jpg"), ("left/10.jpg", "left/11.jpg")]
    assert len(pairs) == 1 + 4 * 2
    assert all(PurePosixPath(a).parent == PurePosixPath(b).parent for a, b in pairs)


def test_the_cameras_of_a_rig_go_in_step() -> None:
    names = [f"{side}/{i}.jpg" for side in ("left", "right", "other") for i in (8, 9, 10)]
    rig = {name: RigPlace(name[: name.index("/")], name.partition("/")[2]) for name in names if name[0] != "o"}
    for order in names, names[::-1]:
        assert sequential(order, 1, rig) == [
            ("left/8.jpg", "right/8.jpg"),
            ("left/8.jpg", "left/9.jpg"),
            ("left/8.jpg", "right/9.jpg"),
            ("left/9.jpg", "right/9.jpg"),
            ("left/9.jpg", "left/10.jpg"),
            ("left/9.jpg", "right/10.jpg"),
            ("left/10.jpg", "right/10.jpg"),
            ("other/8.jpg", "other/9.jpg"),
            ("other/9.jpg", "other/10.jpg"),
            ("right/8.jpg", "right/9.jpg"),
            ("right/8.jpg", "left/9.jpg"),
            ("right/9.jpg", "right/10.jpg"),
            ("right/9.jpg", "left/10.jpg"),
        ]
    rigged = [name for name in names if name in rig]
    everything = sequential(rigged, 9, rig)
    assert {frozenset(pair) for pair in everything} == {frozenset(pair) for pair in exhaustive(rigged)}
    assert len(everything) == 15


def test_cameras_of_a_rig_in_one_folder_are_sequences_of_their_own() -> None:
    names = ["l_1", "l_2", "r_1", "r_2"]
    rig = {name: RigPlace(name[0], name[2]) for name in names}
    assert ("l_2", "r_1") not in sequential(["l_1", "l_2", "r_1"], 1, rig)
    assert ("l_2", "l_1") not in sequential(names, 1, rig) and len(sequential(names, 1, rig)) == 6


def test_exhaustive_keeps_the_order_of_the_names() -> None:
    names = ["a10", "a2", "b/1"]
    assert exhaustive(names) == [("a10", "a2"), ("a10", "b/1"), ("a2", "b/1")]


def test_the_format_is_hlocs_with_tabs_only_if_a_name_needs_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    pairs = [Pair("a.jpg", "b.jpg"), Pair("b.jpg", "s/my photo 1.JPG"), Pair("#1.jpg", "a.jpg")]
    write_pairs(path, pairs)
    assert path.read_bytes() == b"a.jpg b.jpg\nb.jpg\ts/my photo 1.JPG\n#1.jpg\ta.jpg\n"
    assert read_pairs(path) == PairsFile(pairs, 0, 0, 0, [])
    write_pairs(path, [])
    assert path.read_bytes() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [Pair("a", "b")])
    with pytest.raises(InputError, match=r"cannot pair 'tab.t': the name holds a control character"):
        write_pairs(path, [Pair("c", "tab\t")])
    assert path.read_bytes() == b"a b\n"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write pairs to .*folder"):
        write_pairs(tmp_path / "folder", [Pair("a", "b")])
    with pytest.raises(InputError, match=r"cannot write pairs to .*missing"):
        write_pairs(tmp_path / "missing" / "pairs.txt", [Pair("a", "b")])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "pairs.txt"]


def test_repeated_reversed_and_self_pairs_are_dropped_and_counted(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"b a\na c\nb a\na b\na b\nc c\na\tc\n")
    assert parsed == PairsFile([Pair("b", "a"), Pair("a", "c")], 2, 2, 1, [])


def test_invalid_lines_become_failures_and_the_rest_is_read(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"a b\none\nmy photo 1.jpg b.jpg\na\tb\tc\n\xff b\na\t\na\0 b\nc d")
    assert parsed.pairs == [("a", "b"), ("c", "d")]
    assert [(f.stage, f.name) for f in parsed.failures] == [("pairs", f"pairs.txt line {n}") for n in range(2, 8)]
    assert [f.reason for f in parsed.failures] == [
        "1 word instead of 2 names; separate names with spaces by a tab",
        "4 words instead of 2 names; separate names with spaces by a tab",
        "3 names separated by tabs instead of 2",
        "not valid UTF-8: save the file as UTF-8",
        "the name is empty",
        "NUL characters, as in UTF-16 without a byte order mark: save the file as UTF-8",
    ]


def test_byte_order_mark_windows_lines_blanks_and_comments_are_accepted(tmp_path: Path) -> None:
    parsed = read(tmp_path, "\ufeffa  b \r\n\r\n \t \r\n# a note\r\n#x y\r\nmy a\tmy b\r\n  # note\r\nc d".encode())
    assert parsed == PairsFile([Pair("a", "b"), Pair("my a", "my b"), Pair("c", "d")], 0, 0, 0, [])


def test_an_empty_file_has_no_pairs(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == PairsFile([], 0, 0, 0, [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"# a b\n\n", "no line has two"), (b"a a\n", "no line has two"), (b"a\n", "1 word")],
)
def test_a_file_without_pairs_is_an_error_before_it_is_matched(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"lists no pairs .{reason}.*two images per line"):
        check_pairs(path)
    path.write_bytes(content + b"\na b\n")
    check_pairs(path)


def test_pairs_share_one_copy_of_each_name(tmp_path: Path) -> None:
    pairs = read(tmp_path, b"one.jpg two.jpg\ntwo.jpg three.jpg\nthree.jpg one.jpg\n").pairs
    assert pairs[0].b is pairs[1].a and pairs[1].b is pairs[2].a and pairs[2].b is pairs[0].a


@pytest.mark.parametrize(("target", "message"), [("missing.txt", "lgbatch pairs"), (".", "Is a directory")])
def test_an_unreadable_file_raises_a_one_line_input_error(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_pairs(tmp_path / target)
    with pytest.raises(InputError, match=message):
        check_pairs(tmp_path / target)
    assert "\n" not in str(error.value)


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(st.lists(names, max_size=8, unique=True))
def test_written_pairs_are_read_back(image_names: list[str]) -> None:
    pairs = exhaustive(image_names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.txt"
        write_pairs(path, pairs)
        assert read_pairs(path) == PairsFile(pairs, 0, 0, 0, [])


@given(st.one_of(st.binary(), st.text("ab#\t \r\n\ufeff\u3000\x85").map(str.encode)))
def test_any_bytes_can_be_read_and_no_line_is_lost(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parsed = read(Path(folder), content)
        write_pairs(Path(folder) / "again.txt", parsed.pairs)
        assert read_pairs(Path(folder) / "again.txt").pairs == parsed.pairs
    accounted_lines = len(parsed.pairs) + parsed.duplicates + parsed.reversed + parsed.self_pairs + len(parsed.failures)
    assert accounted_lines <= content.count(b"\n") + 1
    assert len({frozenset(pair) for pair in parsed.pairs}) == len(parsed.pairs)


def test_an_io_error_raises_input_error_even_if_cleanup_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(InputError, match=r"cannot write pairs to .*pairs\.txt: Input/output error"):
        write_pairs(tmp_path / "pairs.txt", [Pair("a", "b")])


def test_only_the_pairs_of_whole_rounds_count_as_those_of_pairs_jsonl(tmp_path: Path) -> None:
    """A killed run leaves pairs.txt without the last round; a user who deletes lines must not lose that edit."""
    tried = [
        TriedPair("a", name, number, "candidate", "", 0, 0, 0)
        for name, number in zip("bcde", (1, 1, 2, 2), strict=True)
    ]
    pairs = [Pair(pair.a, pair.b) for pair in tried]
    write_tried_pairs(tmp_path / "pairs.jsonl", tried)
    for count, unedited in ((4, True), (3, False), (2, True), (1, False)):
        write_pairs(tmp_path / "pairs.txt", pairs[:count])
        assert lists_tried_pairs(tmp_path / "pairs.txt", tmp_path / "pairs.jsonl") == unedited
    write_pairs(tmp_path / "pairs.txt", [*pairs, Pair("b", "c")])
    assert not lists_tried_pairs(tmp_path / "pairs.txt", tmp_path / "pairs.jsonl")
