"""Masks: which file belongs to which photo, and what they hide."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.errors import InputError, ItemError
from lgbatch.photos.file_hash import hash_photo
from lgbatch.photos.masks import crawl_with_masks, drop_masked, keypoints_to_detect, read_masks, visible
from lgbatch.types import Features, ImageRef


def image(path: Path, size: tuple[int, int] = (40, 30), dtype: type = np.uint8) -> Path:
    """An image whose left half is black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), 255, dtype)
    pixels[:, : size[0] // 2] = 0
    assert cv2.imwrite(str(path), pixels)
    return path


def masks_by_name(photos: Path, masks: str = "", camera_mask: str = "") -> dict[str, tuple[Path, ...]]:
    return {ref.name: ref.masks for ref in crawl_with_masks(photos, masks, camera_mask).images}


def test_masks_are_found_by_both_names_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for name in ("a.jpg", "day 1/b.JPG", "both.jpg", "none.jpg"):
        image(photos / name)
    for name in ("a.jpg.png", "day 1/b.png", "both.jpg.png", "both.png"):
        image(masks / name)
    shared = image(tmp_path / "camera.png")
    assert masks_by_name(photos) == {"a.jpg": (), "both.jpg": (), "day 1/b.JPG": (), "none.jpg": ()}
    assert capfd.readouterr().err == ""
    assert masks_by_name(photos, str(masks), str(shared)) == {
        "a.jpg": (masks / "a.jpg.png", shared),
        "both.jpg": (masks / "both.jpg.png", shared),
        "day 1/b.JPG": (masks / "day 1/b.png", shared),
        "none.jpg": (shared,),
    }
    assert capfd.readouterr().err == f"masks: 3 of 4 photos have one in {masks}\n"


def test_masks_among_the_photos_are_no_photos(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "a.jpg.png", "masks/a.jpg.png", "masks/spare.png"):
        image(tmp_path / name)
    names = {"a.jpg": (tmp_path / "a.jpg.png",), "b.png": ()}
    assert masks_by_name(tmp_path, str(tmp_path)) == names | {"masks/a.jpg.png": (), "masks/spare.png": ()}
    inside = masks_by_name(tmp_path, str(tmp_path / "masks"))
    mask = tmp_path / "masks/a.jpg.png"
    assert inside == {"a.jpg": (mask,), "a.jpg.png": (mask,), "b.png": ()}
    assert "b.png" not in masks_by_name(tmp_path, "", str(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("masks", "camera_mask", "reason"),
    [
        ("missing", "", "no mask folder .*missing"),
        ("empty", "", r"no photo has a mask in .*empty: the mask of a\.jpg is a\.jpg\.png or a\.png"),
        ("", "missing.png", "no camera mask .*missing.png"),
    ],
)
def test_masks_that_are_not_there_are_refused(tmp_path: Path, masks: str, camera_mask: str, reason: str) -> None:
    image(tmp_path / "photos/a.jpg")
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / name) if name else "" for name in (masks, camera_mask)]
    with pytest.raises(InputError, match=reason):
        crawl_with_masks(tmp_path / "photos", *paths)


@pytest.mark.parametrize(("size", "dtype"), [((40, 30), np.uint8), ((80, 60), np.uint16), ((13, 10), np.uint8)])
def test_points_on_black_pixels_are_hidden(tmp_path: Path, size: tuple[int, int], dtype: type) -> None:
    path = image(tmp_path / "a.png", size, dtype)
    (mask,) = read_masks(ImageRef("a.jpg", tmp_path / "a.jpg", (path,)), (40, 30))
    edge = 40 * (size[0] // 2) / size[0]  # of the black half, in COLMAP's coordinates
    points = np.array([[-0.5, 0], [edge - 0.6, 29.4], [edge - 0.4, -0.4], [39.4, 29.4]], np.float32)
    assert visible(points, (40, 30), [mask]).tolist() == [False, False, True, True]
    assert visible(points, (40, 30), [mask, ~mask]).tolist() == [False] * 4
    assert visible(points, (40, 30), []).all()


@pytest.mark.parametrize(
    ("size", "reason"), [((40, 25), "make it of the photo's size"), ((30, 40), "turned"), (None, "is not an image")]
)
def test_unfit_masks_are_the_photo_s_failure(tmp_path: Path, size: tuple[int, int] | None, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"text") if size is None else image(path, size)
    with pytest.raises(ItemError, match=rf"its mask a\.png .*{reason}"):
        read_masks(ImageRef("a.jpg", tmp_path / "a.jpg", (path,)), (40, 30))


def test_keypoints_outside_the_mask_keep_their_rows_up_to_the_limit() -> None:
    count = 10
    points = np.array([[i, 0] for i in range(count)], np.float32)
    numbers = np.arange(count, dtype=np.float32)
    features = Features(points, numbers, numbers[:, None].repeat(4, 1), (count, 1), numbers, numbers)
    mask = np.arange(count)[None] % 2 == 1
    kept = drop_masked(features, [mask], 3)
    assert kept.keypoints[:, 0].tolist() == kept.scores.tolist() == kept.descriptors[:, 0].tolist() == [1, 3, 5]
    assert kept.scales is not None and kept.oris is not None
    assert kept.scales.tolist() == kept.oris.tolist() == [1, 3, 5]
    assert (keypoints_to_detect(3, [mask]), keypoints_to_detect(3, [])) == (12, 3)


def test_the_hash_of_a_photo_without_masks_is_that_of_its_file_and_masks_change_it(tmp_path: Path) -> None:
    photo, mask = image(tmp_path / "a.png"), image(tmp_path / "m.png")
    plain = hash_photo(ImageRef("a.png", photo))
    assert plain[1:] == (photo.stat().st_size, photo.stat().st_mtime_ns)
    masked = hash_photo(ImageRef("a.png", photo, (mask,)))
    image(mask, (44, 33))
    changed = hash_photo(ImageRef("a.png", photo, (mask,)))
    assert len({plain.digest, masked.digest, changed.digest}) == 3
