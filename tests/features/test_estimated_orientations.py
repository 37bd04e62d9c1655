"""Photos without an EXIF orientation are turned as similar photos show."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgbatch.config import Settings
from lgbatch.features.orient import Oriented, orient, orient_pair
from lgbatch.photos.crawl import Crawl, crawl
from lgbatch.photos.metadata import read_metadata
from tests.helpers.oriented import STORED, read

SIZE = (640, 480)


def store(gallery: Path, folder: Path, orientations: list[int], first: int = 0) -> Crawl:
    """Write views of the gallery, as they are stored for these orientations but without a tag."""
    folder.mkdir(exist_ok=True)
    for number, orientation in enumerate(orientations, first):
        view = Image.fromarray(read(gallery / f"view_{number:02d}.jpg", SIZE))
        if orientation != 1:
            view = view.transpose(STORED[orientation])
        view.save(folder / f"{number:02d}.png")
    return crawl(folder)


def codes(oriented: Crawl) -> list[int]:
    return [ref.orientation for ref in oriented.images]


def test_each_photo_is_turned_as_the_others_show(gallery: Path, tmp_path: Path) -> None:
    expected = [1, 1, 3, 6, 1, 8, 3, 1, 1, 6, 1, 1]
    crawled = store(gallery, tmp_path / "photos", expected)
    oriented, result = orient(crawled, tmp_path / "out", Settings())
    assert codes(oriented) == expected
    assert (result.turned_by_exif, result.turned_by_neighbours) == (0, 5)
    images = json.loads((tmp_path / "out" / "orientations.json").read_text())["images"]
    assert [images[name]["by"] for name in ("00.png", "02.png")] == ["none", "neighbours"]
    again, repeated = orient(crawled, tmp_path / "out", Settings())
    assert again == oriented and repeated == replace(result, finished_already=True)
    assert codes(orient(crawled, tmp_path / "exif", Settings(rotation="exif"))[0]) == [1] * 12


def test_upright_photos_stay_as_they_are(gallery: Path, tmp_path: Path) -> None:
    crawled = crawl(gallery)
    assert orient(crawled, tmp_path, Settings()) == (crawled, Oriented())


def test_photos_keep_their_turns_when_others_are_added(gallery: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    first, _ = orient(store(gallery, folder, [1, 1, 3]), out, Settings())
    assert codes(first) == [1, 1, 3]
    crawled = store(gallery, folder, [3, 3, 3, 3], first=3)  # most photos are turned now
    assert codes(orient(crawled, out, Settings())[0]) == [1, 1, 3, 3, 3, 3, 3]
    fresh, _ = orient(crawled, out, Settings(on_change="recompute"))
    assert codes(fresh) == [3, 3, 1, 1, 1, 1, 1]


def test_photos_that_were_turned_by_exif_alone_are_decided_on_anew(gallery: Path, tmp_path: Path) -> None:
    crawled = store(gallery, tmp_path / "photos", [1, 1, 3])
    assert codes(orient(crawled, tmp_path, Settings(rotation="exif"))[0]) == [1, 1, 1]
    assert codes(orient(crawled, tmp_path, Settings())[0]) == [1, 1, 3]


def test_a_photo_without_evidence_is_decided_on_when_it_gets_neighbours(gallery: Path, tmp_path: Path) -> None:
    folder, plain = tmp_path / "photos", np.full((48, 64, 3), 90, np.uint8)
    store(gallery, folder, [1, 1])
    store(gallery, folder, [3], first=9)  # another part of the scene
    Image.fromarray(plain).save(folder / "plain.png")
    assert codes(orient(crawl(folder), tmp_path, Settings())[0])[-1] == 1
    images = json.loads((tmp_path / "orientations.json").read_text())["images"]
    assert images["plain.png"]["neighbours"] == 0 and images["00.png"]["neighbours"] >= 1
    crawled = store(gallery, folder, [1] * 7, first=2)
    assert codes(orient(crawled, tmp_path, Settings())[0]) == [1] * 9 + [3, 1]


def test_a_photo_that_was_replaced_is_decided_on_anew(gallery: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    orient(store(gallery, folder, [1, 1, 3]), out, Settings())
    assert codes(orient(store(gallery, folder, [1, 1, 1]), out, Settings())[0]) == [1, 1, 1]


def test_many_photos_are_compared_with_those_that_look_alike(gallery: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = []
    for number in range(36):  # each view whole, and two halves that overlap
        view = Image.fromarray(read(gallery / f"view_{number // 3:02d}.jpg", SIZE))
        part = view.crop([(0, 0, 640, 480), (0, 0, 420, 480), (220, 0, 640, 480)][number % 3])
        expected.append(3 if number % 5 == 2 else 1)
        (part.rotate(180) if expected[-1] == 3 else part).save(folder / f"{number:02d}.png")
    oriented, result = orient(crawl(folder), tmp_path, Settings())
    assert codes(oriented) == expected
    assert result.turned_by_neighbours == expected.count(3)


@pytest.mark.parametrize("pitch", ["-90.00", "-10.00"])
def test_the_gimbal_tells_where_the_pixels_do_not(tmp_path: Path, pitch: str) -> None:
    rng = np.random.default_rng(0)
    for name, yaw in ("a", "+12.5"), ("b", "-170.0"), ("c", "+8.1"):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        xmp = f'<x d:GimbalYawDegree="{yaw}" d:GimbalPitchDegree="{pitch}"/>'.encode()
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", xmp=xmp)
    metadata = read_metadata(tmp_path / "b.jpg")
    assert metadata and metadata.gimbal_yaw == -170 and metadata.gimbal_pitch == float(pitch)
    oriented, _ = orient(crawl(tmp_path), tmp_path / "out", Settings())
    assert codes(oriented) == ([1, 3, 1] if pitch == "-90.00" else [1, 1, 1])  # a level camera may look anywhere


def test_unreadable_photos_and_one_photo(gallery: Path, tmp_path: Path) -> None:
    crawled = store(gallery, tmp_path / "photos", [1])
    assert codes(orient(crawled, tmp_path / "one", Settings())[0]) == [1]
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    assert codes(orient(crawl(tmp_path / "photos"), tmp_path / "out", Settings())[0]) == [1, 1]


def test_the_photos_of_a_pair_are_turned_against_each_other(gallery: Path, tmp_path: Path) -> None:
    first, second = store(gallery, tmp_path / "photos", [1, 6]).images
    assert [ref.orientation for ref in orient_pair((first, second), Settings())] == [1, 6]
    assert [ref.orientation for ref in orient_pair((first, second), Settings(rotation="exif"))] == [1, 1]
