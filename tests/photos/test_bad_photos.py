"""Damaged photos and other files are rejected with a reason, and nothing is printed."""

import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgbatch.errors import ItemError
from lgbatch.photos.decode import decode
from lgbatch.types import ImageRef
from tests.photos.test_decode import encoded, jpeg, png, read, reason, scene, tiff


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"Dear diary\n", "not a photo"),
        (b"GIF89a" + bytes(40), "not a photo"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"II*\0", "truncated"),
        (b"BM", "cannot be decoded"),
        (b"RIFF\0\0\0\0WEBP", "cannot be decoded"),
        (tiff(image=scene().astype(np.float32), bits=32, sample_format=3), "unsupported TIFF pixels"),
        (tiff(image=scene()[..., :1].astype(np.float32), bits=32, sample_format=3), "unsupported TIFF pixels"),
    ],
)
def test_a_file_that_is_not_a_photo_is_rejected_with_a_reason(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in reason(tmp_path, content)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("suffix", ["exif.jpg", "progressive.jpg", ".png", ".tif", ".webp", ".bmp", ".jp2"])
def test_truncated_photos_are_rejected(tmp_path: Path, suffix: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    if suffix == ".tif":
        content = tiff(image=noise)
    else:
        flags = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1) if suffix == "progressive.jpg" else ()
        content = encoded(suffix[suffix.index(".") :], noise, *flags)
    if suffix == "exif.jpg":  # The thumbnail in the header has an end marker too.
        thumbnail = encoded(".jpg", scene())
        content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    truncated = content[: min(int(len(content) * fraction), len(content) - 2)]
    assert "truncated" in reason(tmp_path, truncated, f"p{suffix}")
    assert read(tmp_path, content).size == (80, 60)


def test_a_partial_download_filled_with_zeros_is_truncated(tmp_path: Path) -> None:
    content = jpeg(1)
    assert "truncated" in reason(tmp_path, content[:-300] + bytes(300))


def test_data_after_the_end_of_a_photo_is_ignored(tmp_path: Path) -> None:
    for content in jpeg(1), png(1):
        assert read(tmp_path, content + b"the video of a motion photo" + bytes(99)).size == (40, 24)


def test_a_damaged_png_is_rejected(tmp_path: Path) -> None:
    content = bytearray(png(1))
    content[-40] ^= 1
    assert "checksum" in reason(tmp_path, bytes(content))


def test_a_missing_file_and_a_folder_are_rejected(tmp_path: Path) -> None:
    for path, expected in (tmp_path / "gone.jpg", "No such file"), (tmp_path, "Is a directory"):
        with pytest.raises(ItemError, match=f"cannot be read: {expected}"):
            decode(ImageRef("p.jpg", path), 0)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_read_permission_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    path.write_bytes(jpeg(1))
    path.chmod(0)
    with pytest.raises(ItemError, match="cannot be read: Permission denied"):
        decode(ImageRef("p.jpg", path), 0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([tiff(6), tiff(3, ">"), png(5)]),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_header_gives_a_photo_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: list[tuple[int, int]]
) -> None:
    damaged = bytearray(content)
    for offset, value in damage:
        damaged[offset] = value
    try:
        photo = read(tmp_path_factory.getbasetemp(), bytes(damaged), "damaged.jpg", resize=16)
    except ItemError as error:
        assert str(error)
    else:
        assert photo.pixels.shape[2] == 3


def test_bad_photos_print_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for suffix in ".jpg", ".png", ".tif", ".webp", ".bmp", ".jp2":
        content = encoded(suffix, noise)
        (tmp_path / f"cut{suffix}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"damaged{suffix}").write_bytes(content[:90] + bytes(9) + content[99:])
    (tmp_path / "damaged.jpg").unlink()  # libjpeg prints a warning for this one, which cannot be turned off.
    (tmp_path / "float.tif").write_bytes(tiff(image=noise.astype(np.float32), bits=32, sample_format=3))
    (tmp_path / "text.jpg").write_text("text")
    program = (
        "import pathlib, sys\nfrom lgbatch.photos.decode import *\nrejected = 0\n"
        "for p in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: decode(ImageRef(p.name, p), 0)\n"
        "    except ItemError: rejected += 1\n"
        "print(rejected)"
    )
    process = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    assert int(process.stdout) >= 8


def test_decoding_is_thread_safe(tmp_path: Path) -> None:
    refs = []
    for i in range(12):
        refs.append(ImageRef(f"{i}.png", tmp_path / f"{i}.png"))
        refs[-1].path.write_bytes(encoded(".png", np.roll(scene(120, 160), i, axis=1)))
    with ThreadPoolExecutor(4) as pool:
        photos = list(pool.map(lambda ref: decode(ref, 64), refs))
    for ref, photo in zip(refs, photos, strict=True):
        np.testing.assert_array_equal(photo.pixels, decode(ref, 64).pixels)
        assert photo.name == ref.name
