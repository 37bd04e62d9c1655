"""What each format needs besides its decoder: missing pixels, 16 bits, alpha, and the formats of extras."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from lgbatch.errors import ItemError
from lgbatch.photos import formats
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.photos.formats import HAS_HEIF, HAS_RAW
from lgbatch.photos.metadata import read_metadata
from lgbatch.types import ByteArray, ImageRef
from tests.photos.test_decode import encoded, read, reason, scene, tiff


def noise(height: int = 120, width: int = 160) -> ByteArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_jpeg_without_some_pixels_but_with_an_end_marker_is_damaged(
    tmp_path: Path, flags: tuple[int, ...], share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(".jpg", noise(), *flags)
    start = content.index(b"\xff\xda") + 14
    cut = content[: start + int((len(content) - start) * share)].rstrip(b"\xff") + b"\xff\xd9"
    assert "part of the JPEG's pixels is missing" in reason(tmp_path, cut)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_jpeg_with_all_pixels_but_no_end_marker_is_good(
    tmp_path: Path, flags: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(".jpg", noise(), *flags)
    whole = read(tmp_path, content)
    np.testing.assert_array_equal(read(tmp_path, content.removesuffix(b"\xff\xd9")).pixels, whole.pixels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("flags", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
def test_jpeg_pixels_equal_opencvs(tmp_path: Path, mode: str, flags: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene(121, 163)).convert(mode).save(buffer, "JPEG", **flags if mode == "RGB" else {})
    expected = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read(tmp_path, buffer.getvalue()).pixels, expected)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "mpo", "JPE"])
def test_other_extensions_of_jpeg_are_read(tmp_path: Path, suffix: str) -> None:
    name = f"p.{suffix}"
    photo = read(tmp_path, encoded(".jpg", scene()), name)
    assert [image.name for image in crawl(tmp_path).images] == [name]
    assert formats.read_by_colmap(tmp_path / name)
    np.testing.assert_array_equal(photo.pixels, read(tmp_path, encoded(".jpg", scene())).pixels)


def deep(suffix: str, pixels: np.ndarray) -> bytes:
    return tiff(image=pixels, bits=16) if suffix == ".tif" else encoded(suffix, pixels)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_narrow_range_of_16_bits_is_stretched(tmp_path: Path, suffix: str, channels: int) -> None:
    smooth = scene(120, 160)[..., :channels].astype(np.float64)
    narrow = (7300 + smooth * 1.6).astype(np.uint16)  # a thermal camera: 408 of 65536 levels
    photo = read(tmp_path, deep(suffix, narrow), f"p{suffix}")
    assert np.corrcoef(photo.pixels[..., :channels].ravel(), smooth.ravel())[0, 1] > 0.999
    assert len(np.unique(photo.pixels)) > 140
    assert (photo.pixels.min(), photo.pixels.max()) == (0, 255)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jp2"])
def test_16_bits_of_the_full_range_keep_their_upper_8_bits(tmp_path: Path, suffix: str) -> None:
    full = scene(120, 160).astype(np.uint16) * 257
    content = deep(suffix, full)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read(tmp_path, content, f"p{suffix}").pixels, expected)


def test_8_bits_of_a_narrow_range_are_kept(tmp_path: Path) -> None:
    dark = scene() // 10
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", dark), "p.png").pixels, dark)


def test_16_bits_of_one_level_decode(tmp_path: Path) -> None:
    flat = read(tmp_path, encoded(".png", np.full((30, 40, 3), 7000, np.uint16)), "p.png").pixels
    assert len(np.unique(flat)) == 1


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_pixels_of_alpha_0_are_masked(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix != "png" and mode != "RGBA":
        pytest.skip("PNG alone has this kind of alpha")
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 1
    image = Image.fromarray(np.dstack([scene(), alpha]))
    if mode == "P":
        image = Image.fromarray(np.where(alpha == 0, 3, 7).astype(np.uint8), "P")
        image.putpalette(bytes(range(96)))
        image.info["transparency"] = 3
    path = tmp_path / f"p.{suffix}"
    (image.convert(mode) if mode == "LA" else image).save(path, lossless=True, quality=100)
    (mask,) = decode(ImageRef(path.name, path), 0).masks
    np.testing.assert_array_equal(mask, alpha > 0)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_opaque_photos_have_no_mask(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    image = Image.fromarray(scene())
    (image if suffix == "jpg" else image.convert("RGBA")).save(path)
    assert decode(ImageRef(path.name, path), 0).masks == ()


def test_avif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.avif"
    Image.fromarray(scene()).save(path, quality=100, subsampling="4:4:4")
    photo = decode(ImageRef("p.avif", path), 0)
    assert photo.size == (40, 24)
    assert np.abs(photo.pixels.astype(int) - scene()).max() <= 4
    with pytest.raises(ItemError, match="megapixels"):
        decode(ImageRef("p.avif", path), 0, 1e-5)
    assert "cannot be decoded" in reason(tmp_path, path.read_bytes()[:90], "q.avif")


@pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif")
def test_heic_is_read_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "p.heic"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene(96, 160)).save(path, format="HEIF", quality=100, exif=exif)
    photo, metadata = decode(ImageRef("p.heic", path), 0), read_metadata(path)
    assert metadata is not None
    assert photo.size == metadata.size
    assert photo.pixels.std() > 30


@pytest.mark.skipif(HAS_HEIF, reason="pillow-heif is installed")
def test_heic_names_the_extra_that_reads_it(tmp_path: Path) -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    assert "pip install 'lgbatch[heif]'" in reason(tmp_path, content)


def bayer_dng(path: Path) -> None:
    """Write a DNG without compression: 16 bits, RGGB."""
    tifffile = pytest.importorskip("tifffile")
    mosaic = scene(96, 160)[..., 1].astype(np.uint16) * 64
    tags = [
        (50706, "B", 4, b"\1\4\0\0", True),  # DNGVersion
        (50708, "s", 0, "Test Camera", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, b"\0\1\1\2", True),
        (50717, "I", 1, 16383, True),  # white level
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        (274, "H", 1, 6, True),
        (271, "s", 0, "Test", True),
        (272, "s", 0, "Camera", True),
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)


@pytest.mark.skipif(not HAS_RAW, reason="needs rawpy")
def test_raw_is_developed_without_turning(tmp_path: Path) -> None:
    path = tmp_path / "p.dng"
    bayer_dng(path)
    photo, metadata = decode(ImageRef("p.dng", path), 0), read_metadata(path)
    assert metadata is not None
    assert photo.size == metadata.size == (160, 96)
    assert photo.pixels.std() > 20
    assert metadata.make == "Test"
    with pytest.raises(ItemError, match="megapixels"):
        decode(ImageRef("p.dng", path), 0, 0.01)
    (tmp_path / "q.dng").write_bytes(b"II*\0" + bytes(500))
    with pytest.raises(ItemError, match="cannot be decoded"):
        decode(ImageRef("q.dng", tmp_path / "q.dng"), 0)


@pytest.mark.skipif(HAS_RAW, reason="rawpy is installed")
def test_raw_names_the_extra_that_reads_it(tmp_path: Path) -> None:
    assert "pip install 'lgbatch[raw]'" in reason(tmp_path, b"II*\0" + bytes(500), "p.dng")


def test_a_damaged_jpeg_prints_nothing(tmp_path: Path) -> None:
    content = bytearray(encoded(".jpg", noise()))
    for i in range(20):
        damaged = content.copy()
        damaged[700 + 100 * i : 790 + 100 * i] = bytes(range(i, i + 90))
        (tmp_path / f"{i}.jpg").write_bytes(damaged)
    program = (
        "import pathlib, sys\nfrom lgbatch.photos.decode import *\n"
        "for p in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: decode(ImageRef(p.name, p), 0)\n"
        "    except ItemError: pass\n"
    )
    process = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert (process.stdout, process.stderr) == ("", "")


@pytest.mark.parametrize(
    ("size", "resize", "divisor"),
    [
        ((1600, 1200), 400, 2),
        ((1598, 1200), 400, 1),
        ((1601, 1200), 400, 1),
        ((1600, 1200), 200, 4),
        ((1596, 1200), 200, 2),
        ((1602, 1200), 200, 2),
    ],
)
def test_jpegs_are_decoded_at_half_their_size_if_shrunk_four_times_and_at_a_quarter_if_eight_times(
    tmp_path: Path, size: tuple[int, int], resize: int, divisor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    content = encoded(".jpg", cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), cv2.IMWRITE_JPEG_QUALITY, 95)
    shapes = []
    decode_jpeg = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *a, **k: shapes.append(decode_jpeg(*a, **k).shape) or decode_jpeg(*a, **k)
    )
    photo = read(tmp_path, content, resize=resize)
    assert shapes == [(size[1] // divisor, size[0] // divisor, 3)]
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    expected = cv2.resize(whole, photo.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert photo.size == size
    difference = np.abs(photo.pixels.astype(int) - expected)
    assert difference.mean() < 0.5 if divisor > 1 else not difference.any()
