"""The image size in the header is read as by the decoder, and checked before memory is allocated."""

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

FORMATS = ("png", "jpg", "tif", "webp", "bmp", "jp2")


def encoded(suffix: str, width: int, height: int, *flags: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    done, data = cv2.imencode(f".{suffix}", image, flags)
    assert done
    return data.tobytes()


def vp8x(width: int, height: int, frame: bytes) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + frame[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def claiming(suffix: str, width: int, height: int) -> bytes:
    """A small file whose header gives this size, whatever the size of its pixel data."""
    if suffix == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    if suffix == "tif":
        data = bytearray(tiff())
        for offset, side in (18, width), (30, height):
            struct.pack_into("<I", data, offset, side)
        return bytes(data)
    if suffix == "webp":
        return vp8x(width, height, encoded("webp", 16, 16))
    data = bytearray(encoded(suffix, 64, 64))
    if suffix == "jpg":
        offset = next(data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
        struct.pack_into(">HH", data, offset + 5, height, width)
    elif suffix == "bmp":
        struct.pack_into("<ii", data, 18, width, height)
    else:
        codestream = data.find(b"\xff\x4f\xff\x51")
        struct.pack_into(">II", data, codestream + 8, width, height)
        struct.pack_into(">II", data, codestream + 24, width, height)  # tile size
        box = data.find(b"ihdr")
        struct.pack_into(">II", data, box + 4, height, width)
    return bytes(data)


def rejection(path: Path, max_megapixels: float = 500) -> str:
    with pytest.raises(ItemError) as error:
        decode(ImageRef(path.name, path), 1024, max_megapixels)
    return str(error.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_decompression_bomb_costs_neither_memory_nor_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.{suffix}"
    path.write_bytes(claiming(suffix, 60000, 60000))
    assert path.stat().st_size < 1 << 16
    script = (
        "import sys, time; from pathlib import Path; from lgbatch.photos.decode import *\n"
        "from lgbatch.runtime.environment import peak_memory_mb as peak\n"
        "path = Path(sys.argv[1]); before, start = peak(), time.process_time()\n"
        "try: decode(ImageRef(path.name, path), 1024, 500)\n"
        "except ItemError as error: print(error)\n"
        "print(peak() - before); print(time.process_time() - start)"
    )
    process = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    reason, megabytes, seconds = process.stdout.splitlines()
    assert reason == (
        "the header says 60000x60000 pixels, more than the limit of 500 megapixels: raise --max-megapixels"
    )
    assert float(megabytes) < 10
    assert float(seconds) < 0.2
    assert process.stderr == ""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_photo_at_the_limit_is_read_and_one_above_is_rejected(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(tiff(image=np.zeros((40, 50, 3), np.uint8)) if suffix == "tif" else encoded(suffix, 50, 40))
    assert decode(ImageRef(path.name, path), 0, 0.002).size == (50, 40)
    assert "50x40 pixels, more than the limit of 0.0019 megapixels" in rejection(path, 0.0019)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size", [(0, 40), (40, 0), (0, 0)])
def test_an_empty_side_is_rejected(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    if suffix == "webp":
        pytest.skip("WebP stores the size minus one")
    path = tmp_path / f"empty.{suffix}"
    path.write_bytes(claiming(suffix, *size))
    assert rejection(path) == f"the header says {size[0]}x{size[1]} pixels: not a photo"


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
def test_claimed_size_is_that_of_the_encoder(suffix: str, flags: tuple[int, ...]) -> None:
    for width, height in (37, 41), (300, 257), (1, 1):
        if (suffix, width) == ("jp2", 1):  # too small for the encoder
            break
        data = encoded(suffix, width, height, *flags)
        assert claimed_size(data) == (width, height)
        if suffix == "webp":
            assert claimed_size(vp8x(width, height, data)) == (width, height)
        if suffix == "jp2":
            assert claimed_size(data[data.find(b"\xff\x4f\xff\x51") :]) == (width, height)
        for end in range(0, 64):  # a truncated header raises nothing
            claimed_size(data[:end])
    assert claimed_size(vp8x(70001, 80002, encoded("webp", 16, 16))) == (70001, 80002)


def test_the_size_of_a_top_down_bmp_is_positive(tmp_path: Path) -> None:
    data = bytearray(encoded("bmp", 16, 12))
    struct.pack_into("<i", data, 22, -12)
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    assert decode(ImageRef("a.bmp", path), 0, 1).size == (16, 12)
    assert "16x12" in rejection(path, 0.0001)


def test_the_limit_applies_to_tiles(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    data = bytearray(tiff(image=image))
    for offset, tag in ((106, 322), (118, 323)):  # replace RowsPerStrip and StripByteCounts
        assert struct.unpack_from("<H", data, offset)[0] in (278, 279)
        struct.pack_into("<H", data, offset, tag)
        struct.pack_into("<I", data, offset + 8, 60000)
    path = tmp_path / "tiles.tif"
    path.write_bytes(data)
    assert "60000x60000" in rejection(path)


def test_a_file_too_large_for_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "endless.jpg"
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(1 << 40)  # a sparse file
    assert rejection(path).startswith("the file (1099.5 GB) is too large for the limit of 500 megapixels")
