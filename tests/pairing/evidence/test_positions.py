"""Files of positions, and photos that are near each other."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import union
from lgbatch.pairing.evidence.positions import check_positions, file_positions, near, read_positions


def positions(folder: Path, text: str, names: list[str]) -> list[list[float]]:
    path = folder / "positions.txt"
    path.write_text(text, encoding="utf-8")
    check_positions(path)
    return np.round(file_positions(path, names), 1).tolist()


def test_metres_with_and_without_height(tmp_path: Path) -> None:
    text = "# exported\n\na/1.jpg 1 2 3\nb.jpg -4.5e0 5 6\nother.jpg 0 0 0\n"
    assert positions(tmp_path, text, ["b.jpg", "a/1.jpg"]) == [[-4.5, 5, 6], [1, 2, 3]]
    assert positions(tmp_path, "name x y\na 1 2\nb 3 4\n", ["a", "b"]) == [[1, 2], [3, 4]]
    assert positions(tmp_path, "my photo.jpg\t1\t2\nb\t3\t4\n", ["my photo.jpg"]) == [[1, 2]]
    assert positions(tmp_path, "image_name, X, Y, Z\nmy photo.jpg, 1, 2, 3\n", ["my photo.jpg"]) == [[1, 2, 3]]


def test_degrees_after_a_title(tmp_path: Path) -> None:
    for title in "name latitude longitude", "image_name\tlat\tlon\talt", "Filename,Latitude,Longitude,Altitude":
        mark = "\t" if "\t" in title else "," if "," in title else " "
        rows = "\n".join(mark.join(row) for row in (["a", "60", "179.999"], ["b", "60", "-179.999"]))
        assert positions(tmp_path, f"{title}\n{rows}\n", ["a", "b"]) == [[0, 0], [111.3, 0]]


def test_columns_of_degrees_may_be_in_another_order_and_altitudes_empty(tmp_path: Path) -> None:
    for mark in ",;\t":
        rows = "name longitude note latitude altitude", "a 8 x 48 300", "b 8.1 y 48.1 "
        (tmp_path / "positions.txt").write_text("\n".join(rows).replace(" ", mark))
        found = read_positions(tmp_path / "positions.txt")
        assert found.is_degrees and found.found == {"a": (48, 8, 300), "b": (48.1, 8.1)}


def test_a_photo_without_a_position_is_near_none(tmp_path: Path) -> None:
    path = tmp_path / "positions.txt"
    path.write_text("a 0 0\nb 1 0\nc 3 0\n")
    found = union("abcx", [near(file_positions(path, "abcx"), 1, 0)])
    assert found.pairs.tolist() == [[0, 1], [1, 2]]
    assert len(union("abcx", [near(file_positions(path, "abcx"), 9, 0)]).pairs) == 3
    assert union("abcx", [near(file_positions(path, "abcx"), 9, 2.0)]).as_pairs() == [("a", "b"), ("b", "c")]
    assert len(near(np.full((4, 2), np.nan), 3, 0).pairs) == len(near(np.zeros((1, 2)), 3, 0).pairs) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a 1\n", "line 1 is not a name and 2 or 3 numbers"),
        (b"a 1 2\nmy photo.jpg 1 2\n", "line 2 is not a name and 2 or 3 numbers.*separate names with spaces by tabs"),
        (b"a nan 2\n", "line 1"),
        (b"name,lat,lon,alt\na,,8,300\n", "line 2 is not a name and 2 or 3 numbers"),
        (b"name latitude longitude\na 60 8\nb 91 8\n", "line 3 is not a latitude and longitude"),
        (b"b 1 2\n", "has no position of a photo"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_bad_file_is_reported_with_the_way_out(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "positions.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        file_positions(path, ["a"])
    with pytest.raises(InputError, match="No such file"):
        file_positions(tmp_path / "none.txt", ["a"])
    path.write_bytes(b"\n# nothing\n")
    with pytest.raises(InputError, match="has no position: write lines NAME X Y"):
        check_positions(path)
