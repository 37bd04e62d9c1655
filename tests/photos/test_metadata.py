"""Metadata is read from the headers of all formats, equal to what COLMAP reads where COLMAP can."""

import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from lgbatch.colmap.sensors.exif import Exif, by_colmaps_rules, read_exif
from lgbatch.photos import metadata
from lgbatch.photos.metadata import read_metadata

SIZE = (60, 40)
CANON = {271: "Canon", 272: "Canon EOS 450D"}
FOCAL, FOCAL_35, RESOLUTION, UNIT, EXIF_WIDTH, EXIF_HEIGHT = 37386, 41989, 41486, 41488, 40962, 40963
GPS = {1: "S", 2: (47, 8, Fraction(1234, 100)), 3: "W", 4: (8, 30, 0), 6: Fraction(4325, 10)}
Directory = dict[int, Any]


def rational(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(rational(v) for v in value)
    return TiffImagePlugin.IFDRational(value) if isinstance(value, int | Fraction) else value


def write(path: Path, tags: Directory, photo_tags: Directory | None = None, gps: Directory | None = None) -> Path:
    """Write a photo with EXIF: tags, those of the Exif directory and those of the GPS directory."""
    photo_tags = {k: rational(v) if k in (FOCAL, RESOLUTION) else v for k, v in (photo_tags or {}).items()}
    gps = {k: rational(v) for k, v in (gps or {}).items()}
    if path.suffix == ".tif":
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in (tags | {34665: photo_tags, 34853: gps}).items():
            if value != {}:
                directory[tag] = value
        Image.new("RGB", SIZE).save(path, tiffinfo=directory)
        return path
    exif = Image.Exif()
    exif.update(tags)
    for tag, values in ((ExifTags.IFD.Exif, photo_tags), (ExifTags.IFD.GPSInfo, gps)):
        if values:
            exif.get_ifd(tag).update(values)
    Image.new("RGB", SIZE).save(path, exif=exif)
    return path


def by_colmap(path: Path) -> Exif:
    bitmap = pycolmap.Bitmap.read(path, as_rgb=False)
    position = (bitmap.exif_latitude(), bitmap.exif_longitude(), bitmap.exif_altitude())
    gravity = {1: (0, 1, 0), 3: (0, -1, 0), 6: (1, 0, 0), 8: (-1, 0, 0)}
    return Exif(
        (bitmap.width, bitmap.height),
        bitmap.exif_camera_model(),
        bitmap.exif_focal_length(),
        None if None in position else position,
        gravity.get(bitmap.exif_orientation()),
        bitmap.exif_orientation(),
    )


VARIANTS: dict[str, tuple[Directory, Directory, Directory]] = {
    "none": ({}, {}, {}),
    "35 mm": (CANON, {FOCAL_35: 30}, {}),
    "35 mm before the focal plane": (CANON, {FOCAL: 24, FOCAL_35: 30, RESOLUTION: 4000, UNIT: 2}, {}),
    "focal plane in inches": (CANON, {FOCAL: Fraction(243, 10), RESOLUTION: Fraction(17, 3), UNIT: 2}, {}),
    "focal plane in centimetres": (CANON, {FOCAL: 24, RESOLUTION: 27, UNIT: 3}, {}),
    "focal plane in millimetres": (CANON, {FOCAL: 24, RESOLUTION: 3, UNIT: 4}, {}),
    "focal plane without a unit": (CANON, {FOCAL: 24, RESOLUTION: 4000, UNIT: 1}, {}),
    "sensor width": (CANON, {FOCAL: Fraction(243, 10)}, {}),
    "sensor width, zero 35 mm": (CANON, {FOCAL: 24, FOCAL_35: 0}, {}),
    "ambiguous model": ({271: "Canon", 272: "EOS 5D"}, {FOCAL: 24}, {}),
    "unknown camera": ({271: "None", 272: "Such"}, {FOCAL: 24}, {}),
    "spaces": ({271: " Canon ", 272: "EOS  450D "}, {FOCAL: Fraction(243, 10)}, {}),
    "a zero byte": ({271: "Canon\0x", 272: "EOS 450D"}, {FOCAL: 24}, {}),
    "no model": ({271: "Canon"}, {FOCAL: 24, FOCAL_35: 30}, {}),
    "no focal length": (CANON, {}, {}),
    "turned": (CANON | {274: 6}, {FOCAL_35: 30}, {}),
    "position": (CANON, {FOCAL_35: 30}, GPS),
    "position, north east": (CANON, {}, GPS | {1: "N", 3: "e"}),
    "position without references": (CANON, {}, {k: v for k, v in GPS.items() if k not in (1, 3)}),
    "no altitude": (CANON, {}, {k: v for k, v in GPS.items() if k != 6}),
    "two numbers of latitude": (CANON, {}, GPS | {2: (47, 8)}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_camera_focal_length_and_position_equal_colmaps(tmp_path: Path, suffix: str, variant: str) -> None:
    path = write(tmp_path / f"photo.{suffix}", *VARIANTS[variant])
    assert list(read_exif([path])) == [by_colmap(path)]


def test_an_altitude_below_the_sea_equals_colmaps(tmp_path: Path) -> None:
    path = write(tmp_path / "photo.jpg", CANON, {}, GPS | {5: b"\1"})
    assert list(read_exif([path])) == [by_colmap(path)]
    assert by_colmap(path).position == pytest.approx((-47.136761, -8.5, -432.5))


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_formats_that_colmap_cannot_read_give_what_a_jpeg_gives(tmp_path: Path, suffix: str) -> None:
    variant = (CANON | {274: 6}, {FOCAL: 24, FOCAL_35: 30}, GPS)
    paths = [write(tmp_path / f"photo.{s}", *variant) for s in (suffix, "jpg")]
    found, expected = read_exif(paths)
    assert found == expected
    assert expected.focal == pytest.approx(30 / 43.27 * np.hypot(*SIZE))
    assert [m and m.orientation for m in map(read_metadata, paths)] == [6, 6]


@pytest.mark.parametrize("behind", [False, True], ids=["before the codestream", "behind it"])
def test_jpeg_2000_gives_what_a_jpeg_gives(tmp_path: Path, behind: bool) -> None:
    exif = Image.Exif()
    exif.update(CANON)
    exif.get_ifd(ExifTags.IFD.Exif)[FOCAL_35] = 30
    path, jpeg = tmp_path / "photo.jp2", tmp_path / "photo.jpg"
    Image.new("RGB", SIZE).save(jpeg, exif=exif)
    Image.new("RGB", SIZE).save(path)
    data, tiff = path.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    box = struct.pack(">I4s16s", 24 + len(tiff), b"uuid", b"JpgTiffExif->JP2") + tiff
    start = data.index(b"jp2c") - 4
    if behind and data[start : start + 4] == b"\0\0\0\0":
        data = data[:start] + struct.pack(">I", len(data) - start) + data[start + 4 :]
    path.write_bytes(data + box if behind else data[:start] + box + data[start:])
    found, expected = read_exif([path, jpeg])
    assert found == expected
    assert expected.camera is not None


SHRUNK = {FOCAL: 24, RESOLUTION: 40, UNIT: 4, EXIF_WIDTH: 600, EXIF_HEIGHT: 400}


@pytest.mark.parametrize(
    ("tags", "photo_tags", "focal"),
    [
        (CANON, SHRUNK | {FOCAL_35: 30}, 30 / 43.27 * np.hypot(*SIZE)),
        (CANON, SHRUNK, 24 / 22.2 * 60),
        ({}, SHRUNK, 24 * 40 / 10),
        (CANON, {FOCAL: 24, RESOLUTION: 27, UNIT: 4}, 24 / 22.2 * 60),
    ],
    ids=["35 mm", "sensor width", "scaled by EXIF's size", "sensor width contradicts, without EXIF's size"],
)
def test_the_focal_plane_of_a_larger_photo_is_not_believed(
    tmp_path: Path, tags: Directory, photo_tags: Directory, focal: float
) -> None:
    (exif,) = read_exif([write(tmp_path / "photo.jpg", tags, photo_tags)])
    assert exif.focal == pytest.approx(focal)


def test_damaged_files_have_no_metadata(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jpg", *VARIANTS["position"])
    data = good.read_bytes()
    (tmp_path / "short.jpg").write_bytes(data[:40])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no photo")
    names = ["short.jpg", "empty.jpg", "text.png", "gone.jpg", "good.jpg"]
    assert list(read_exif([tmp_path / name for name in names]))[:4] == [Exif()] * 4


@pytest.mark.parametrize("seed", range(60))
def test_damaged_exif_gives_some_metadata_without_an_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = write(tmp_path / "photo.jpg", *VARIANTS["position"])
    data = bytearray(path.read_bytes())
    start = data.index(b"Exif\0\0") + 6
    for offset in rng.integers(start, start + 200, 4):
        data[offset] = rng.integers(256)
    path.write_bytes(data)
    (exif,) = read_exif([path])
    assert exif.size in (SIZE, None)


def test_a_huge_photo_is_no_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("1", (20000, 10000)).save(path)
    metadata = read_metadata(path)
    assert metadata is not None
    assert by_colmaps_rules(metadata).size == (20000, 10000)


def test_a_header_is_read_once_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read = metadata._pillow_metadata

    def count(photo: Path) -> metadata.Metadata:
        opened.append(photo)
        return read(photo)

    monkeypatch.setattr(metadata, "_pillow_metadata", count)
    photo = write(tmp_path / "a.jpg", {274: 6})
    first = read_metadata(photo)
    assert first and first.orientation == 6 and read_metadata(photo) is first and len(opened) == 1
    write(photo, {274: 8})
    os.utime(photo, ns=(1, 1))
    changed = read_metadata(photo)
    assert changed and changed.orientation == 8 and len(opened) == 2
    photo.write_bytes(b"no photo")
    assert read_metadata(photo) is None and read_metadata(photo) is None and len(opened) == 4  # perhaps a bad moment
    photo.unlink()
    assert read_metadata(photo) is None
