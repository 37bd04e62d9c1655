"""Photos that say they are larger than they are, and what their headers say otherwise."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.errors import ItemError
from lgbatch.photos.decode import decode
from lgbatch.photos.image_header import claimed_size
from lgbatch.types import ImageRef
from tests.photos.test_decode import chunk, tiff

KINDS = ("png", "jpg", "tif", "webp", "bmp", "jp2")


def encoded(suffix: str, width: int, height: int, *flags: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    done, data = cv2.imencode(f".{suffix}", image, flags)
    assert done
    return data.tobytes()


def vp8x(width: int, height: int, frame: bytes) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + frame[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header has another size than its pixels."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    if kind == "tif":
        data = bytearray(tiff())
        for at, side in (18, width), (30, height):
            struct.pack_into("<I", data, at, side)
        return bytes(data)
    if kind == "webp":
        return vp8x(width, height, encoded("webp", 16, 16))
    data = bytearray(encoded(kind, 64, 64))
    if kind == "jpg":
        at = next(data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
        struct.pack_into(">HH", data, at + 5, height, width)
    elif kind == "bmp":
        struct.pack_into("<ii", data, 18, width, height)
    else:
        at = data.find(b"\xff\x4f\xff\x51")
        struct.pack_into(">II", data, at + 8, width, height)
        struct.pack_into(">II", data, at + 24, width, height)  # of a tile
        box = data.find(b"ihdr")
        struct.pack_into(">II", data, box + 4, height, width)
    return bytes(data)


def refused(path: Path, max_megapixels: float = 500) -> str:
    with pytest.raises(ItemError) as error:
        decode(ImageRef(path.name, path), 1024, max_megapixels)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_takes_neither_memory_nor_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(claiming(kind, 60000, 60000))
    assert path.stat().st_size < 1 << 16
    script = (
        "import sys, time; from pathlib import Path; from lgbatch.photos.decode import *\n"
        "from lgbatch.runtime.environment import peak_memory_mb as peak\n"
        "path = Path(sys.argv[1]); before, start = peak(), time.process_time()\n"
        "try: decode(ImageRef(path.name, path), 1024, 500)\n"
        "except ItemError as error: print(error)\n"
        "print(peak() - before); print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    reason, megabytes, seconds = done.stdout.splitlines()
    assert reason == (
        "the header says 60000x60000 pixels, more than 500 megapixels, the limit that --max-megapixels raises"
    )
    assert float(megabytes) < 10
    assert float(seconds) < 0.2
    assert done.stderr == ""


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_where_it_says(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photo.{kind}"
    path.write_bytes(tiff(image=np.zeros((40, 50, 3), np.uint8)) if kind == "tif" else encoded(kind, 50, 40))
    assert decode(ImageRef(path.name, path), 0, 0.002).size == (50, 40)
    assert "50x40 pixels, more than 0.0019 megapixels" in refused(path, 0.0019)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(0, 40), (40, 0), (0, 0)])
def test_no_width_or_height_is_no_photo(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    if kind == "webp":
        pytest.skip("stores the size less one")
    path = tmp_path / f"none.{kind}"
    path.write_bytes(claiming(kind, *size))
    assert refused(path) == f"the header says {size[0]}x{size[1]} pixels: no photo"


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        ("png", ()),
        ("jpg", ()),
        ("jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("webp", (cv2.IMWRITE_WEBP_QUALITY, 50)),
        ("webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
        ("bmp", ()),
        ("jp2", ()),
    ],
)
def test_headers_are_read_as_the_decoder_does(suffix: str, flags: tuple[int, ...]) -> None:
    for width, height in (37, 41), (300, 257), (1, 1):
        if (suffix, width) == ("jp2", 1):  # too small for its encoder
            break
        data = encoded(suffix, width, height, *flags)
        assert claimed_size(data) == (width, height)
        if suffix == "webp":
            assert claimed_size(vp8x(width, height, data)) == (width, height)
        if suffix == "jp2":
            assert claimed_size(data[data.find(b"\xff\x4f\xff\x51") :]) == (width, height)
        for end in range(0, 64):  # cut short: whatever it says, it says without an exception
            claimed_size(data[:end])
    assert claimed_size(vp8x(70001, 80002, encoded("webp", 16, 16))) == (70001, 80002)


def test_a_bmp_from_the_top_down_has_a_size_too(tmp_path: Path) -> None:
    data = bytearray(encoded("bmp", 16, 12))
    struct.pack_into("<i", data, 22, -12)
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    assert decode(ImageRef("a.bmp", path), 0, 1).size == (16, 12)
    assert "16x12" in refused(path, 0.0001)


def test_a_tile_larger_than_the_photo_counts(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    data = bytearray(tiff(image=image))
    for at, tag in ((106, 322), (118, 323)):  # in the place of the strips' rows and byte counts
        assert struct.unpack_from("<H", data, at)[0] in (278, 279)
        struct.pack_into("<H", data, at, tag)
        struct.pack_into("<I", data, at + 8, 60000)
    path = tmp_path / "tiles.tif"
    path.write_bytes(data)
    assert "60000x60000" in refused(path)


def test_a_file_too_large_for_any_such_photo_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "endless.jpg"
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(1 << 40)  # sparse
    assert refused(path).startswith("the file, of 1099.5 GB, is too large for a photo of 500 megapixels")
